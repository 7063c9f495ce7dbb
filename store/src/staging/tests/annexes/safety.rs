//! Tests that what is removed from one directory is safe in another one, and that nothing of others is touched.

use super::*;

#[test]
fn a_copy_whose_name_was_never_made_durable_does_not_count_before_it_is() {
    let (name, main) = (pack_name(b"p"), Arc::<MemoryFiles>::default());
    let disks = Disks::new(1);
    disks.annexes[0].write_synced(name.as_str(), b"p").unwrap();
    // A run that was cut off when it had given the name.
    let put = |files: &MemoryFiles| {
        files.write_synced("tmp/00", b"p").unwrap();
        files.rename("tmp/00", name.as_str()).unwrap();
    };
    put(&main);
    let mut looks = VecDeque::from([vec![annex(0, disks.annexes[0].clone(), true)]]);
    let staging = Staging::with_annexes(main.clone(), Box::new(move || looks.pop_front()));
    assert_eq!(main.at_risk(), [name.to_string()]);
    leave(&staging).unwrap();
    assert_eq!(main.at_risk(), [] as [String; 0], "it is nowhere else any more");
    assert_eq!(staging.read(&name, 0, 1).unwrap(), b"p");
    // Whoever found one and relies on it.
    put(&main);
    staging.make_durable(&name).unwrap();
    assert_eq!(main.at_risk(), [] as [String; 0]);
}

#[test]
fn the_only_file_of_a_pack_is_not_removed_because_another_path_leads_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let (name, at) = (pack_name(b"p"), |path: &str| dir.path().join(path));
    let (main, b) = (Arc::new(DiskFiles::new(&at("main"))), Arc::new(DiskFiles::new(&at("b"))));
    annex(0, b.clone(), true).make().unwrap();
    Area::without_links(b.clone()).put(name.as_str(), b"p").unwrap();
    std::fs::create_dir_all(at("main/tmp")).unwrap();
    std::fs::create_dir_all(at("main/pack")).unwrap();
    let within = parent_of(name.as_str());
    std::os::unix::fs::symlink(at("b").join(within), at("main").join(within)).unwrap();
    let mut looks = VecDeque::from([vec![annex(0, b, true)]]);
    let staging = Staging::with_annexes(main, Box::new(move || looks.pop_front()));
    let error = leave(&staging).unwrap_err().to_string();
    assert!(error.contains("is the same file in"), "{error}");
    assert_eq!(std::fs::read(at("b").join(name.as_str())).unwrap(), b"p");
}

#[test]
fn who_is_told_that_a_pack_goes_is_told_while_it_is_there() {
    let disks = Disks::new(2);
    let name = pack_name(b"p");
    disks.annexes[0].write_synced(name.as_str(), b"p").unwrap();
    let staging = disks.staging_on(|files| files, &[0]);
    let annexes = staging.annexes();
    let refuses = |_: &Went| Err(StoreError::Cancelled);
    staging.move_out(&annexes[0], &name, refuses).unwrap_err();
    assert!(disks.annexes[0].len(name.as_str()).unwrap().is_some());
}
