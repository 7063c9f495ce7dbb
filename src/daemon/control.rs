//! The daemon's side of the socket: questions come in, each with a way for its answers.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast_store::clock::Clock;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Happened;
use super::talk::{self, Answer, LINE_MAX, Question};

/// Conversations at once, most of which wait for the end of a job; who comes beside them is let go.
const CONVERSATIONS: usize = 500;
/// Who asks nothing for so long is let go.
const PATIENCE: Duration = Duration::from_secs(2);

/// The way of answers to whoever asked; it ends when it is dropped.
pub type Answers = UnboundedSender<Answer>;

/// Where questions come in. Taking the place of a socket that a daemon left which was killed is safe: the caller holds the lock.
pub fn listen(store: &Path) -> std::io::Result<UnixListener> {
    let (_dir, path) = talk::socket_in(store)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Removes the socket.
pub fn leave(store: &Path) {
    // The next daemon does it as well.
    let _ = talk::socket_in(store).map(|(_dir, path)| std::fs::remove_file(path));
}

/// Takes questions to the daemon for ever.
pub async fn serve(listener: UnixListener, to: Sender<Happened>, clock: Arc<dyn Clock>) {
    let room = Arc::new(Semaphore::new(CONVERSATIONS));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Ok(permit) = Arc::clone(&room).try_acquire_owned() {
                    tokio::spawn(converse(stream, to.clone(), Arc::clone(&clock), permit));
                }
            }
            // Such as too many open files: others may end theirs.
            Err(error) => {
                tracing::warn!("a question cannot be taken: {error}");
                clock.sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(
    stream: UnixStream,
    to: Sender<Happened>,
    clock: Arc<dyn Clock>,
    _room: OwnedSemaphorePermit,
) {
    let (from, mut back) = stream.into_split();
    let mut line = String::new();
    let mut from = BufReader::new(from);
    let asked = tokio::select! {
        read = async { (&mut from).take(LINE_MAX).read_line(&mut line).await } => read.is_ok(),
        () = clock.sleep(PATIENCE) => false,
    };
    if !asked || line.is_empty() {
        return;
    }
    let (answers, mut said) = unbounded_channel();
    match serde_json::from_str::<Question>(&line) {
        // If nobody takes it, the way of its answers ends.
        Ok(question) => drop(to.send(Happened::Asked(question, answers)).await),
        Err(error) => drop(answers.send(Answer::Refused { reason: format!("this is no question: {error}") })),
    }
    pass_on(&mut said, &mut back, &mut from).await;
}

/// Passes answers on until there are no more, or nobody is left who wants them.
async fn pass_on(
    said: &mut UnboundedReceiver<Answer>,
    back: &mut (impl AsyncWriteExt + Unpin),
    from: &mut (impl AsyncReadExt + Unpin),
) {
    let mut more = [0; 1];
    loop {
        let answer = tokio::select! {
            answer = said.recv() => answer,
            // One question a conversation: whatever comes now is its end.
            _ = from.read(&mut more) => None,
        };
        let Some(answer) = answer else { return };
        let Ok(mut line) = serde_json::to_vec(&answer) else { return };
        line.push(b'\n');
        if back.write_all(&line).await.is_err() {
            return;
        }
    }
}
