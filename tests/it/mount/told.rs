//! A service manager, as a mount tells it that it is there and that it ends.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::ends::children;
use super::{in_foreground_with, signal, with_point};
use crate::testkit::{Machine, Ran, can_mount};

/// A socket of a service manager with a name in the file system, and one without, with what the environment says of each.
fn sockets(machine: &Machine) -> [(UnixDatagram, OsString); 2] {
    let path = machine.path("notify");
    let name = path.as_os_str().as_encoded_bytes();
    let hidden = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
    let mut at = OsString::from("@");
    at.push(&path);
    [(UnixDatagram::bind(&path).unwrap(), path.into()), (hidden, at)]
}

fn hear(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let len = socket.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..len].to_vec()).unwrap()
}

#[test]
fn a_service_manager_is_told_when_the_mount_can_be_listed_and_when_it_ends() {
    if !can_mount("a_service_manager_is_told_when_the_mount_can_be_listed_and_when_it_ends") {
        return;
    }
    let (machine, _) = with_point();
    let path = machine.path("recovery");
    std::fs::create_dir(&path).unwrap();
    for (socket, name) in sockets(&machine) {
        let mut command = machine.command(["mount"]);
        command.arg(&path).env("NOTIFY_SOCKET", &name).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let told = hear(&socket);
        assert_eq!(path.join("by-id").read_dir().unwrap().count(), 1, "it is there when that is said");
        let expected = format!("READY=1\nMAINPID={}\nSTATUS=mounted at {}", child.id(), path.display());
        assert_eq!(told, expected);
        for other in children(&child) {
            let environment = std::fs::read(format!("/proc/{other}/environ")).unwrap();
            assert!(!String::from_utf8_lossy(&environment).contains("NOTIFY"), "{other}");
        }
        signal(&child, Signal::SIGTERM);
        assert_eq!(hear(&socket), "STOPPING=1");
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_mount_in_the_background_tells_only_whoever_began_it() {
    if !can_mount("a_mount_in_the_background_tells_only_whoever_began_it") {
        return;
    }
    let (machine, _) = with_point();
    let [(socket, name), _] = sockets(&machine);
    machine.mount_with("recovery", &[], &[("NOTIFY_SOCKET", name.to_str().unwrap())]).umount();
    socket.set_nonblocking(true).unwrap();
    assert_eq!(socket.recv(&mut [0; 64]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    // One that nobody reads keeps no mount from anything.
    let path = machine.path("recovery");
    drop(socket);
    let mut child = in_foreground_with(&machine, &path, &[("NOTIFY_SOCKET", name.as_os_str())]);
    Ran::of(machine.command(["umount"]).arg(&path)).expect_code(0);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
