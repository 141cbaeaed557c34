use super::*;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn lock(text: &str) -> (LockFile, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dsk.lock");
    if !text.is_empty() {
        fs::write(&path, text).unwrap();
    }
    (LockFile::new(path), folder)
}

#[test]
fn names_are_pinned_once_sorted_and_moved_on_demand() {
    let (lock, folder) = lock("");
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    assert_eq!(lock.pin(&name("b")).unwrap(), None);
    lock.note(&name("r.lan:5000/library/b:7b"), one, false).unwrap();
    lock.note(&name("a"), one, false).unwrap();
    lock.note(&name("a"), one, false).unwrap();
    let error = lock.note(&name("a"), two, false).unwrap_err();
    assert!(matches!(error, PinError::Other { .. }), "{error}");
    assert_eq!(lock.pin(&name("a:latest")).unwrap(), Some(one));
    lock.note(&name("a"), two, true).unwrap();
    let text = fs::read_to_string(lock.path()).unwrap();
    assert_eq!(
        text,
        format!("{HEAD}\"a:latest\" = \"{two}\"\n\"r.lan:5000/library/b:7b\" = \"{one}\"\n")
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
}

#[test]
fn what_a_pull_must_fetch() {
    let (lock, _folder) = lock("");
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    let wanted = |digest, quant| lock.wanted(&name("m"), digest, quant);
    assert_eq!(wanted(None, Some("Q8_0")).unwrap(), None);
    assert_eq!(wanted(Some(two), None).unwrap(), Some(two));
    lock.note(&name("m"), one, false).unwrap();
    assert_eq!(wanted(None, None).unwrap(), Some(one));
    assert_eq!(wanted(Some(one), Some("Q8_0")).unwrap(), Some(one));
    for (digest, quant) in [(Some(two), None), (None, Some("Q8_0"))] {
        let error = wanted(digest, quant).unwrap_err().to_string();
        assert!(error.contains("--update-lock"), "{error}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_never_written_over() {
    let digest = Digest::of(b"1");
    for (text, line, reason) in [
        ("a = 1\n".to_owned(), 1, "write \"a:latest\" = \"sha256:...\""),
        (format!("# x\n\"a\" = \"{digest}\"\n\"a:latest\" = \"{digest}\"\n"), 3, "pinned twice"),
        ("\n\na = \"sha256:1\"\n".to_owned(), 3, "malformed"),
        ("\"../a\" = \"x\"\n".to_owned(), 1, "invalid model name"),
        (format!("\"a\" = \"{digest}\"\n<<<<<<< ours\n"), 2, ""),
    ] {
        let (lock, _folder) = lock(&text);
        for result in [lock.pin(&name("m")).map(drop), lock.note(&name("m"), digest, true)] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(&format!("dsk.lock:{line}: ")), "{error}");
            assert!(error.contains(reason) && error.contains("mend that line"), "{error}");
        }
        assert_eq!(fs::read_to_string(lock.path()).unwrap(), text);
    }
}

#[test]
fn a_lock_file_that_cannot_be_written_says_so() {
    let lock = LockFile::new("/nonexistent/dsk.lock");
    assert_eq!(lock.pin(&name("m")).unwrap(), None);
    let error = lock.note(&name("m"), Digest::of(b""), false).unwrap_err();
    assert!(
        error.to_string().starts_with("the lock file /nonexistent/dsk.lock has no folder"),
        "{error}"
    );
}

#[test]
fn many_writers_lose_no_pin() {
    let (lock, _folder) = lock("");
    std::thread::scope(|scope| {
        for at in 0..16 {
            let lock = &lock;
            scope.spawn(move || {
                lock.note(&name(&format!("m{at}")), Digest::of(&[at]), false).unwrap();
            });
        }
    });
    assert_eq!(lock.read().unwrap().len(), 16);
}
