//! What the ledger remembers, and what becomes of a damaged one.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::agenda::Work;

fn task(work: Work, group: Option<&str>) -> Task {
    Task { work, group: group.map(str::to_owned) }
}

fn second(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

fn ended(at: i64, state: JobState) -> Ended {
    Ended { at: second(at), state, said: String::new(), points: Vec::new(), sent: None }
}

fn run(ledger: &Ledger, task: &Task, from: i64, state: JobState) -> JobNo {
    let no = ledger.begin(task, false, second(from)).unwrap();
    ledger.end(no, &ended(from + 5, state)).unwrap();
    no
}

#[test]
fn a_job_is_remembered_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Ledger::look(dir.path()).unwrap().is_none());
    std::fs::write(dir.path().join(NAME), "").unwrap();
    assert!(Ledger::look(dir.path()).unwrap().is_none(), "it is just being made");
    let (ledger, aside) = Ledger::open(dir.path()).unwrap();
    assert_eq!(aside, None);
    let web = task(Work::Take, Some("web"));
    assert_eq!(ledger.first().unwrap(), None);
    let no = ledger.begin(&web, true, second(100)).unwrap();
    assert_eq!(ledger.first().unwrap(), Some(second(100)));
    let running = ledger.running().unwrap();
    assert_eq!((running.len(), running[0].state), (1, JobState::Running));
    let points = vec!["aa".to_owned(), "bb".to_owned()];
    let end = Ended {
        at: second(160),
        state: JobState::Partial,
        said: "cannot read x".into(),
        points,
        sent: Some(7),
    };
    ledger.end(no, &end).unwrap();
    let expected = Job {
        no,
        task: web,
        person: true,
        begun: second(100),
        ended: Some(second(160)),
        state: JobState::Partial,
        said: "cannot read x".into(),
        points: end.points.clone(),
        sent: Some(7),
    };
    // Another process sees the same, while this one has it open and afterwards.
    let other = Ledger::look(dir.path()).unwrap().unwrap();
    assert_eq!(other.jobs(10).unwrap(), std::slice::from_ref(&expected));
    assert!(other.begin(&expected.task, false, second(0)).is_err(), "who looks does not write");
    drop(ledger);
    assert_eq!(Ledger::look(dir.path()).unwrap().unwrap().jobs(10).unwrap(), [expected]);
}

#[test]
fn the_past_of_a_task_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    let (web, etc, store) =
        (task(Work::Take, Some("web")), task(Work::Take, Some("etc")), task(Work::Reclaim, None));
    assert_eq!(ledger.past(&web).unwrap(), Past::default());
    run(&ledger, &web, 100, JobState::Failed);
    run(&ledger, &web, 200, JobState::Done);
    run(&ledger, &etc, 250, JobState::Partial);
    run(&ledger, &web, 300, JobState::Failed);
    run(&ledger, &web, 400, JobState::Lost);
    let lost = ledger.past(&web).unwrap();
    run(&ledger, &web, 500, JobState::Cancelled);
    run(&ledger, &store, 600, JobState::Done);
    let past = |begun, good, failures| Past {
        begun: Some(second(begun)),
        good: Some(second(good)),
        ended: Some(second(begun + 5)),
        failures,
        cut: None,
    };
    assert_eq!(lost, Past { cut: Some(Cut::Lost), ..past(400, 200, 1) });
    assert_eq!(ledger.past(&web).unwrap(), Past { cut: Some(Cut::Cancelled), ..past(500, 200, 1) });
    assert_eq!(ledger.past(&etc).unwrap(), past(250, 250, 0));
    assert_eq!(ledger.past(&store).unwrap(), past(600, 600, 0));
    assert_eq!(ledger.jobs(2).unwrap().iter().map(|job| job.begun.seconds).collect::<Vec<_>>(), [600, 500]);
}

#[test]
fn only_the_last_jobs_are_kept_and_numbers_are_not_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    let web = task(Work::Take, Some("web"));
    let first = run(&ledger, &web, 1, JobState::Failed);
    ledger.connection().execute("UPDATE sqlite_sequence SET seq = ?1", [JOBS_MAX]).unwrap();
    let next = run(&ledger, &web, 2, JobState::Done);
    assert_eq!((first.0, next.0), (1, JOBS_MAX + 1));
    assert_eq!(ledger.jobs(10).unwrap().len(), 1);
}

#[test]
fn of_a_rare_task_the_last_job_is_kept_and_the_last_one_that_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    let (web, check, db) =
        (task(Work::Take, Some("web")), task(Work::Check, None), task(Work::Take, Some("db")));
    let states = [JobState::Done, JobState::Partial, JobState::Failed, JobState::Failed];
    let rare = [&check, &db].map(|task| states.map(|state| run(&ledger, task, 1, state)));
    let before = ledger.pasts([&db]).unwrap();
    ledger.connection().execute("UPDATE sqlite_sequence SET seq = ?1", [2 * JOBS_MAX]).unwrap();
    let last = run(&ledger, &web, 2, JobState::Done);
    let left: BTreeSet<JobNo> = ledger.jobs(10).unwrap().into_iter().map(|job| job.no).collect();
    let of_rare = rare.into_iter().flat_map(|[_, done, _, failed]| [done, failed]);
    assert_eq!(left, of_rare.chain([last]).collect());
    let after = ledger.pasts([&db]).unwrap();
    assert_eq!((before[&db].good, before[&db].ended), (after[&db].good, after[&db].ended));
}

#[test]
fn much_that_was_said_is_cut_at_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    let no = ledger.begin(&task(Work::Check, None), false, second(1)).unwrap();
    let said = "ä".repeat(5000) + "!";
    ledger.end(no, &Ended { said, ..ended(2, JobState::Failed) }).unwrap();
    let kept = &ledger.jobs(1).unwrap()[0].said;
    assert!(kept.len() <= SAID_MAX && kept.len() > SAID_MAX - 4 && kept.ends_with("ä!"), "{}", kept.len());
}

#[test]
fn a_damaged_ledger_is_put_aside_and_one_of_another_version_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    std::fs::write(&path, vec![7; 8192]).unwrap();
    assert!(Ledger::look(dir.path()).is_err());
    let (ledger, aside) = Ledger::open(dir.path()).unwrap();
    assert_eq!(std::fs::read(aside.unwrap()).unwrap(), vec![7; 8192]);
    run(&ledger, &task(Work::Check, None), 1, JobState::Done);
    ledger.connection().pragma_update(None, "user_version", VERSION + 1).unwrap();
    drop(ledger);
    let (ledger, aside) = Ledger::open(dir.path()).unwrap();
    assert!(aside.is_some() && ledger.jobs(1).unwrap().is_empty());
}

#[test]
fn a_ledger_of_an_earlier_version_is_read_as_it_is_and_brought_up_by_its_writer() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    run(&ledger, &task(Work::Push, None), 1, JobState::Done);
    let c = ledger.connection();
    c.execute_batch("ALTER TABLE job DROP COLUMN sent; DROP TABLE alert; DROP TABLE told").unwrap();
    c.pragma_update(None, "user_version", 1).unwrap();
    drop(c);
    drop(ledger);
    let seen = Ledger::look(dir.path()).unwrap().unwrap().jobs(9).unwrap();
    assert_eq!((seen.len(), seen[0].sent), (1, None));
    let (ledger, aside) = Ledger::open(dir.path()).unwrap();
    assert_eq!((aside, ledger.jobs(9).unwrap()), (None, seen.clone()));
    ledger.end(seen[0].no, &Ended { sent: Some(7), ..ended(9, JobState::Done) }).unwrap();
    assert_eq!(ledger.jobs(1).unwrap()[0].sent, Some(7));
    assert!(ledger.open_alerts().unwrap().is_empty());
}

#[test]
fn damage_within_is_found_when_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    run(&ledger, &task(Work::Check, None), 1, JobState::Done);
    let columns = COLUMNS.replace("no, work", "process, work");
    for _ in 0..11 {
        let doubled = format!("INSERT INTO job({columns}) SELECT {columns} FROM job");
        ledger.connection().execute(&doubled, []).unwrap();
    }
    drop(ledger);
    let path = dir.path().join(NAME);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 3 * 4096;
    bytes[at..at + 4096].fill(0x55);
    std::fs::write(&path, bytes).unwrap();
    assert!(Ledger::open(dir.path()).unwrap().1.is_some());
}

#[test]
fn a_row_that_makes_no_sense_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    run(&ledger, &task(Work::Check, None), 1, JobState::Done);
    ledger.connection().execute("UPDATE job SET work = 'x'", []).unwrap();
    assert!(ledger.jobs(1).is_err_and(|error| error.is_damage()));
    ledger.connection().execute("UPDATE job SET work = 'check', begun = 'x'", []).unwrap();
    assert!(ledger.pasts([&task(Work::Check, None)]).is_err_and(|error| error.is_damage()));
}

#[test]
fn each_task_tells_when_it_last_ended_in_each_way() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    let (web, check) = (task(Work::Take, Some("web")), task(Work::Check, None));
    for (task, from, state) in [
        (&web, 10, JobState::Done),
        (&web, 20, JobState::Failed),
        (&web, 30, JobState::Done),
        (&check, 5, JobState::Partial),
    ] {
        run(&ledger, task, from, state);
    }
    ledger.begin(&web, false, second(40)).unwrap();
    let mut ends = ledger.last_ends().unwrap();
    ends.sort_by_key(|(_, _, at)| at.seconds);
    let expected = [
        (check, JobState::Partial, second(10)),
        (web.clone(), JobState::Failed, second(25)),
        (web, JobState::Done, second(35)),
    ];
    assert_eq!(ends, expected);
}

#[test]
fn a_ledger_whose_file_was_removed_is_put_back_with_all_that_it_remembers() {
    // What lies beside the file may be removed with it, or left.
    for with_log in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(dir.path()).unwrap();
        let web = task(Work::Take, Some("web"));
        let first = run(&ledger, &web, 100, JobState::Done);
        assert_eq!(ledger.place(), Place::Same);
        std::fs::remove_file(dir.path().join(NAME)).unwrap();
        if with_log {
            remove_logs(&dir.path().join(NAME));
        }
        assert_eq!(ledger.place(), Place::Empty);
        let running = ledger.begin(&web, false, second(200)).unwrap();
        ledger.put_back().unwrap();
        assert_eq!(ledger.place(), Place::Same);
        ledger.end(running, &ended(205, JobState::Done)).unwrap();
        let third = run(&ledger, &web, 300, JobState::Failed);
        let other = Ledger::look(dir.path()).unwrap().unwrap();
        let seen: Vec<_> = other.jobs(9).unwrap().into_iter().map(|job| (job.no, job.state)).collect();
        let states = [JobState::Failed, JobState::Done, JobState::Done];
        assert_eq!(seen, [third, running, first].into_iter().zip(states).collect::<Vec<_>>());
        assert_eq!(std::fs::metadata(dir.path().join(NAME)).unwrap().mode() & 0o7777, 0o600);
        assert!(!dir.path().join("ledger.db.new").exists());
        std::fs::rename(dir.path().join(NAME), dir.path().join("mine")).unwrap();
        std::fs::copy(dir.path().join("mine"), dir.path().join(NAME)).unwrap();
        assert_eq!(ledger.place(), Place::Another);
    }
}

#[test]
fn news_is_what_came_since_the_last_expiry_by_the_last_jobs_that_were_done() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    let of = |work| Task { work, group: Some("web".into()) };
    let (push, expiry) = (of(Work::Push), of(Work::ExpireOnline));
    let run = |task: &Task, second: i64, state, points: &[&str]| {
        let no = ledger.begin(task, false, Timestamp::from_seconds(second)).unwrap();
        let points = points.iter().map(|point| (*point).to_owned()).collect();
        let at = Timestamp::from_seconds(second + 10);
        ledger.end(no, &Ended { at, state, said: String::new(), points, sent: None }).unwrap();
    };
    let news = || ledger.news(&expiry, &[Work::Push]).unwrap().into_iter().collect::<Vec<_>>();
    run(&push, 0, JobState::Done, &["a"]);
    assert_eq!(news(), [""; 0], "nobody looked before");
    // One that is under way when it is expired.
    let long = ledger.begin(&push, false, Timestamp::from_seconds(90)).unwrap();
    run(&expiry, 100, JobState::Done, &[]);
    let points = vec!["b".to_owned()];
    let at = Timestamp::from_seconds(101);
    ledger.end(long, &Ended { at, state: JobState::Done, said: String::new(), points, sent: None }).unwrap();
    assert_eq!(news(), ["b"]);
    run(&expiry, 200, JobState::Failed, &[]);
    run(&push, 300, JobState::Failed, &["c"]);
    run(&of(Work::Take), 300, JobState::Done, &["x"]);
    run(&Task { group: Some("other".into()), ..push.clone() }, 300, JobState::Done, &["y"]);
    run(&push, 400, JobState::Done, &["d", "e"]);
    assert_eq!(news(), ["b", "c", "d", "e"]);
    run(&push, 500, JobState::Done, &["f"]);
    run(&push, 600, JobState::Done, &["g"]);
    // Of what failed it belongs to the one that was done next.
    assert_eq!(news(), ["c", "d", "e", "f", "g"]);
    run(&expiry, 700, JobState::Partial, &[]);
    assert_eq!(news(), [""; 0]);
}
