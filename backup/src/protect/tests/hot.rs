//! Files that change about the time at which they are read, without a sign: what a point got of them must not stay for ever.

use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::source::{FileOpener, Flow, Found, OpenFile, Visitor};

/// A moment so many seconds before the point that [`Home::take`] takes next.
fn before_the_next_point(home: &Home, seconds: i64) -> Timestamp {
    Timestamp { seconds: home.clock.now().seconds + 60 - seconds, nanos: 1 }
}

#[test]
fn a_file_that_changed_within_a_minute_before_a_point_is_read_again_and_an_older_one_is_not() {
    for (age, again) in [(0, true), (5, true), (30, true), (59, true), (61, false), (3600, false)] {
        let home = Home::new();
        let store = home.open();
        let ctime = before_the_next_point(&home, age);
        let with = |content: &[u8]| {
            let mut source = sample();
            source.file(b"fresh", content);
            source.node_mut(b"fresh").unwrap().ctime = ctime;
            source
        };
        home.take(&store, &with(b"one"), &VoidMonitor).unwrap();
        // Its ctime is as it was: a call of write that had begun, or a store into a page that was dirty.
        let next = home.take(&store, &with(b"two"), &VoidMonitor).unwrap();
        assert_eq!(next.point.counts.files_read, u64::from(again), "{age} s before the point");
        let expected: &[u8] = if again { b"two" } else { b"one" };
        assert_eq!(content(&restore(&store, &next), b"fresh"), expected, "{age} s before the point");
        // By the point after that a minute has passed, and all is as it was.
        home.clock.advance(Duration::from_secs(60));
        home.take(&store, &with(b"two"), &VoidMonitor).unwrap();
        let last = home.take(&store, &with(b"two"), &VoidMonitor).unwrap();
        assert_eq!(last.point.counts.files_read, 0, "{age} s before the first point");
    }
}

/// A file into which a program stores through a mapping: the first store into a page that is clean moves ctime, and no other.
#[derive(Debug)]
struct Page {
    bytes: Vec<u8>,
    ctime: Timestamp,
    dirty: bool,
    /// How often it was written out.
    written: u64,
}

#[derive(Debug)]
struct Mapped(Arc<Mutex<Page>>);

impl Mapped {
    fn new(ctime: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(Page { bytes: b"first".to_vec(), ctime, dirty: true, written: 0 })))
    }

    fn store(&self, bytes: &[u8], now: Timestamp) {
        let mut page = self.0.lock().unwrap();
        page.bytes = bytes.to_vec();
        if !page.dirty {
            (page.ctime, page.dirty) = (now, true);
        }
    }

    fn written(&self) -> u64 {
        self.0.lock().unwrap().written
    }
}

impl DataSource for Mapped {
    fn walk(&self, visitor: &mut dyn Visitor) -> Result<Walked, SourceError> {
        let mut source = sample();
        {
            let page = self.0.lock().unwrap();
            source.file(b"db", &page.bytes).ctime = page.ctime;
        }
        source.walk(&mut Watched { visitor, page: &self.0 })
    }
}

/// Gives the file an opener of its own.
struct Watched<'a> {
    visitor: &'a mut dyn Visitor,
    page: &'a Arc<Mutex<Page>>,
}

impl Visitor for Watched<'_> {
    fn previous(&mut self, name: &[u8]) -> Option<Node> {
        self.visitor.previous(name)
    }

    fn enter_directory(&mut self, directory: Found) -> Flow {
        self.visitor.enter_directory(directory)
    }

    fn entry(&mut self, mut entry: Found) -> Flow {
        if entry.node.name == b"db" {
            let node = Node { content: None, ..entry.node.clone() };
            entry.opener = Some(Box::new(MappedFile { node, page: Arc::clone(self.page) }));
        }
        self.visitor.entry(entry)
    }

    fn leave_directory(&mut self) -> Flow {
        self.visitor.leave_directory()
    }

    fn trouble(&mut self, trouble: SourceError) -> Flow {
        self.visitor.trouble(trouble)
    }
}

#[derive(Clone)]
struct MappedFile {
    node: Node,
    page: Arc<Mutex<Page>>,
}

impl FileOpener for MappedFile {
    fn open(&self) -> Result<Box<dyn OpenFile>, SourceError> {
        Ok(Box::new(self.clone()))
    }
}

impl OpenFile for MappedFile {
    fn write_out(&self) {
        let mut page = self.page.lock().unwrap();
        page.dirty = false;
        page.written += 1;
    }

    fn attributes(&self) -> Result<Node, SourceError> {
        let page = self.page.lock().unwrap();
        Ok(Node { ctime: page.ctime, size: page.bytes.len() as u64, ..self.node.clone() })
    }

    fn xattrs(&self) -> Result<Vec<Xattr>, SourceError> {
        Ok(Vec::new())
    }

    fn flags(&self) -> Result<u32, SourceError> {
        Ok(0)
    }

    fn next_data(&mut self, offset: u64) -> Result<Option<Range<u64>>, SourceError> {
        Ok((offset < self.node.size).then_some(offset..self.node.size))
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let page = self.page.lock().unwrap();
        let rest = page.bytes.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

#[test]
fn what_is_stored_through_a_mapping_after_a_point_is_in_the_next_one_however_late_pages_are_written_out() {
    for (age, written) in [(5, 0), (100, 1), (100_000, 1)] {
        let home = Home::new();
        let store = home.open();
        let db = Mapped::new(before_the_next_point(&home, age));
        home.take(&store, &db, &VoidMonitor).unwrap();
        assert_eq!(db.written(), written, "only what the next point would believe is written out");
        db.store(b"later", home.clock.now());
        let next = home.take(&store, &db, &VoidMonitor).unwrap();
        assert_eq!(content(&restore(&store, &next), b"db"), b"later", "{age} s before the point");
        assert_eq!(next.point.counts.files_read, 1);
    }
}

#[test]
fn a_file_that_is_not_read_is_not_written_out() {
    let home = Home::new();
    let store = home.open();
    let db = Mapped::new(before_the_next_point(&home, 100));
    home.take(&store, &db, &VoidMonitor).unwrap();
    let next = home.take(&store, &db, &VoidMonitor).unwrap();
    assert_eq!((next.point.counts.files_read, db.written()), (0, 1));
}
