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
