//! The tests that see Holdfast from outside: the program as people and scripts use it, its bytes as a stranger reads them, the
//! house rules of its source, and what it is built of. One binary, so that it is linked once.

mod away;
mod bandwidth;
mod bench;
mod cli;
mod cloud;
mod compare;
mod config;
mod crash;
mod daemon;
mod damage;
mod decoder;
mod dependencies;
mod expire;
mod faults;
mod fstab;
mod hooks;
mod hostile;
mod house;
mod malice;
mod messages;
mod mount;
mod nasty;
mod outage;
mod protect;
mod rehearsal;
mod rough;
mod roundtrip;
mod size;
mod soak;
mod testkit;
mod tiers;
mod trouble;
mod truth;
mod vault;
mod verbs;
