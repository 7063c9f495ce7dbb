//! Locks here guard what is whole between any two statements: after a panic, which costs one request ([`guarded`](crate::pool::guarded)),
//! the others go on with it.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after somebody panicked with the lock.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
