use super::*;
use trandb_cluster::NodeId;

fn open(path: &Path) -> Result<DataDir, DataDirError> {
    DataDir::open(path, || 0x1234)
}

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().expect("a directory");
    let path = parent.path().join("deep/data");
    (parent, path)
}

#[test]
fn an_identity_is_there_after_a_restart() {
    let (_parent, path) = fresh();
    let mut dir = open(&path).expect("makes one");
    let new = Identity::fresh(InstanceId(0x1234));
    assert_eq!(*dir.identity(), new);
    assert!(dir.wal_dir().is_dir() && dir.path().join(ENGINE).is_dir());
    assert_eq!(fs::metadata(&path).expect("is there").permissions().mode() & 0o777, OWNER_ONLY);
    let joined = Identity { node: Some(NodeId(3)), cluster: Some(ClusterId(u128::MAX - 1)), ..new };
    dir.set_identity(joined).expect("remembers");
    drop(dir);
    let dir = DataDir::open(&path, || panic!("it has its number already")).expect("opens");
    assert_eq!(*dir.identity(), joined);
}

#[test]
fn only_one_may_have_it_at_a_time() {
    let (_parent, path) = fresh();
    let held = open(&path).expect("makes one");
    let error = open(&path).expect_err("in use");
    assert_eq!(error.exit_code(), 75);
    let expected = format!("is in use by process {}", std::process::id());
    assert!(error.to_string().ends_with(&expected), "{error}");
    drop(held);
    open(&path).expect("is free again");
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let (_parent, path) = fresh();
    drop(open(&path).expect("makes one"));
    fs::write(path.join(VERSION), "trandb 2\n").expect("writes");
    fs::write(path.join(LOCK), "").expect("writes");
    let error = open(&path).expect_err("newer");
    assert_eq!(error.exit_code(), 78);
    assert!(error.to_string().ends_with("has format 2, this release reads up to 1"), "{error}");
    assert_eq!(fs::read(path.join(LOCK)).expect("reads"), b"");
}

#[test]
fn another_cluster_is_refused() {
    let (_parent, path) = fresh();
    let mut dir = open(&path).expect("makes one");
    dir.check_cluster(ClusterId(1)).expect("belongs to none yet");
    let identity = Identity { cluster: Some(ClusterId(1)), ..*dir.identity() };
    dir.set_identity(identity).expect("remembers");
    dir.check_cluster(ClusterId(1)).expect("its own");
    assert_eq!(dir.check_cluster(ClusterId(2)).expect_err("another").exit_code(), 78);
}

#[test]
fn corrupt_control_files_are_refused() {
    for (name, content) in [
        (IDENTITY, Some("{\"instance\": 1, \"node\": \"x\"}")),
        (IDENTITY, Some("")),
        (IDENTITY, None),
        (VERSION, Some("")),
        (VERSION, Some("trandb 0\n")),
        (VERSION, Some("other 1\n")),
    ] {
        let (_parent, path) = fresh();
        drop(open(&path).expect("makes one"));
        match content {
            Some(content) => fs::write(path.join(name), content).expect("writes"),
            None => fs::remove_file(path.join(name)).expect("removes"),
        }
        let error = open(&path).expect_err("corrupt");
        assert_eq!(error.exit_code(), 65, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let (_parent, path) = fresh();
    drop(open(&path).expect("makes one"));
    fs::write(path.join(IDENTITY), vec![b' '; 1 << 20]).expect("writes");
    assert_eq!(open(&path).expect_err("too long").exit_code(), 65);
}

#[test]
fn an_interrupted_creation_is_completed() {
    let (_parent, path) = fresh();
    drop(open(&path).expect("makes one"));
    fs::remove_file(path.join(VERSION)).expect("removes");
    fs::write(path.join("IDENTITY.tmp"), "half").expect("writes");
    fs::create_dir(path.join(LOST_AND_FOUND)).expect("makes one");
    let dir = DataDir::open(&path, || 7).expect("completes it");
    assert_eq!(dir.identity().instance, InstanceId(7));
}

#[test]
fn other_peoples_directories_are_left_alone() {
    let parent = tempfile::tempdir().expect("a directory");
    fs::write(parent.path().join("letter.txt"), "dear").expect("writes");
    let error = open(parent.path()).expect_err("not ours");
    assert_eq!(error.exit_code(), 78);
    assert!(error.to_string().ends_with("it holds \"letter.txt\""), "{error}");
    assert!(!parent.path().join(LOCK).exists());

    // Data without a version is not taken for an interrupted creation.
    let (_parent, path) = fresh();
    drop(open(&path).expect("makes one"));
    fs::remove_file(path.join(VERSION)).expect("removes");
    fs::write(path.join(WAL).join("1.log"), "entries").expect("writes");
    assert!(matches!(open(&path), Err(DataDirError::Foreign { .. })));
}

#[test]
fn a_directory_that_others_could_read_is_closed_to_them() {
    let parent = tempfile::tempdir().expect("a directory");
    fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).expect("opens it");
    open(parent.path()).expect("takes it");
    assert_eq!(fs::metadata(parent.path()).expect("is there").permissions().mode() & 0o777, OWNER_ONLY);
}

#[test]
fn what_cannot_be_written_says_so() {
    let parent = tempfile::tempdir().expect("a directory");
    let file = parent.path().join("file");
    fs::write(&file, "no directory").expect("writes");
    assert_eq!(open(&file.join("data")).expect_err("below a file").exit_code(), 74);
    assert_eq!(open(&file).expect_err("a file").exit_code(), 74);
    let denied = DataDirError::io(&file, io::ErrorKind::PermissionDenied.into());
    assert_eq!(denied.exit_code(), 77);
}

#[test]
fn what_is_put_aside_is_kept_and_the_directory_is_a_new_node_of_the_same_cluster() {
    let (_parent, path) = fresh();
    let mut dir = open(&path).expect("makes one");
    let none = dir.put_aside(7).expect_err("it is of no cluster");
    assert_eq!(none.exit_code(), 65);
    let member = Identity { node: Some(NodeId(3)), cluster: Some(ClusterId(9)), ..*dir.identity() };
    dir.set_identity(member).expect("remembers");
    for (number, random) in [(1, 7), (2, 8)] {
        fs::write(dir.wal_dir().join("1"), "log").expect("writes");
        let aside = dir.put_aside(random).expect("is put aside");
        assert_eq!(aside, path.join(format!("damaged-{number}")));
        assert_eq!(fs::read(aside.join("wal/1")).expect("is kept"), b"log");
        assert!(aside.join("engine").is_dir());
        for empty in [dir.wal_dir(), path.join(ENGINE)] {
            assert_eq!(fs::read_dir(empty).expect("is there").count(), 0);
        }
        drop(dir);
        dir = open(&path).expect("opens");
        let instance = InstanceId(random);
        let new = Identity { rejoins: Some(ClusterId(9)), ..Identity::fresh(instance) };
        assert_eq!(*dir.identity(), new, "also the second time, before it was taken in");
    }
}

#[test]
fn putting_aside_goes_on_where_it_was_cut_off() {
    let (_parent, path) = fresh();
    let mut dir = open(&path).expect("makes one");
    let member = Identity { node: Some(NodeId(3)), cluster: Some(ClusterId(9)), ..*dir.identity() };
    dir.set_identity(member).expect("remembers");
    fs::create_dir(path.join("damaged-1")).expect("is made");
    fs::rename(dir.wal_dir(), path.join("damaged-1/wal")).expect("is moved");
    drop(dir);
    let mut dir = open(&path).expect("opens, and its log is refused later");
    assert_eq!(*dir.identity(), member);
    let aside = dir.put_aside(7).expect("is put aside");
    assert!(aside.join("engine").is_dir() && !aside.join("wal").exists());
    assert!(dir.wal_dir().is_dir() && path.join(ENGINE).is_dir());
}
