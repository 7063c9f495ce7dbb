//! What a kernel may ask of the mounted file system: any number, name, offset and length, over trees in memory. The library below that takes the
//! requests apart is another's; this is what it hands over.

use std::sync::{Arc, LazyLock};

use holdfast_fs::recovery::{Patience, Recovery, Seek};
use holdfast_fs::testing::{MemoryRecovery, Part, link, point};
use holdfast_fs::view::{Detail, View, sized};
use holdfast_store::clock::Deadline;
use holdfast_store::tree::{NodeKind, testing::sample_node};

use super::forge::Input;

static RECOVERY: LazyLock<Arc<MemoryRecovery>> = LazyLock::new(|| {
    let recovery = MemoryRecovery::new();
    for n in 1..3 {
        let parts = [Part::Data(b"some bytes".to_vec()), Part::Hole(5000), Part::Data(vec![n; 100])];
        let inner = recovery.directory("inner", vec![recovery.file("a", &parts), link("b", "../a")]);
        let fifo = sample_node(b"fifo", NodeKind::Fifo);
        let root = recovery
            .directory("root", vec![inner, recovery.file("file", &parts), fifo, link("to", "inner/a")]);
        recovery.add(point("host", "group", "docs", 1_700_000_000 + i64::from(n) * 3600, n.into()), root);
    }
    recovery
});

/// Questions one after another; numbers are those that were told before, or any.
pub fn view(data: &[u8]) {
    let mut input = Input(data);
    let recovery: Arc<dyn Recovery> = RECOVERY.clone();
    let view = View::new(recovery, 1000, 100).expect("trees in memory");
    let patience = Patience::Until(Deadline::NEVER);
    let mut known: Vec<u64> = vec![1];
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let (what, of) = (input.u8(), input.u8());
        let ino = if of == 255 { input.u64() } else { known[usize::from(of) % known.len()] };
        match what % 11 {
            0 => {
                let name = input.part();
                if let Ok(entry) = view.lookup(ino, name, patience) {
                    view.accept(&entry);
                    assert_eq!(
                        view.attr(entry.attr.ino, patience).expect("what was just found").0.ino,
                        entry.attr.ino
                    );
                    known.push(entry.attr.ino);
                }
            }
            1 => drop(view.attr(ino, patience)),
            2 => drop(view.readlink(ino, patience)),
            3 => {
                let (offset, len) = (input.u64(), u32::from(input.u16()));
                if let Ok(bytes) = view.read(ino, offset, len, patience) {
                    assert!(bytes.len() <= len as usize);
                }
            }
            4 => drop(view.seek(ino, input.u64(), Seek::Data, patience)),
            5 => drop(view.seek(ino, input.u64(), Seek::Hole, patience)),
            6 => {
                let (position, most) = (input.u64(), usize::from(input.u8()));
                if let Ok(listed) = view.list(ino, position, most, Detail::All, patience) {
                    assert!(listed.iter().all(|entry| entry.position > position), "a listing goes on");
                    known.extend(
                        listed.iter().filter(|entry| !entry.is_dots()).map(|entry| entry.entry.attr.ino),
                    );
                }
            }
            7 => drop(view.xattr(ino, input.part(), patience).map(|value| sized(value, input.u16().into()))),
            8 => drop(view.xattr_names(ino, false, patience)),
            9 => view.forget(ino, input.u64()),
            _ => drop((
                view.flags(ino, patience),
                view.coming(ino, input.u64(), 10),
                view.decoded_beside(ino, input.u64(), 100),
            )),
        }
    }
}
