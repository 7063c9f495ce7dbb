//! Tests of the border.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::clock::SystemClock;
use crate::vault::memory::MemoryVault;

#[test]
fn objects_go_out_and_come_back() {
    let transfer =
        Transfer::new(Arc::new(MemoryVault::new()), Arc::new(SystemClock), TransferPolicy::default())
            .unwrap();
    let name = ObjectName::new("pack/ab/x").unwrap();
    let receipt = transfer.put_new(&name, Bytes::from_static(b"body")).unwrap();
    assert_eq!((receipt.len(), receipt.already()), (4, false));
    assert!(transfer.put_new(&name, Bytes::from_static(b"body")).unwrap().already());
    assert_eq!(transfer.get(&name, 4).unwrap(), "body");
    assert_eq!(transfer.list_all("pack/").unwrap().len(), 1);
    assert_eq!(transfer.probe().unwrap(), Probed { may_delete: true });
}
