use expect_test::{Expect, expect};

use super::*;

const USER: &str = "keep_alive = \"10m\"\norigins = [\"https://a.test\", \"https://b.test\"]\n";
const SYSTEM: &str = "keep_alive = \"1h\"\nmax_queue = 7\n";

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let base = [("HOME", "/home/ada"), ("XDG_RUNTIME_DIR", "/run/user/7")];
    base.iter().chain(pairs).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn check(flags: &[(Key, &str)], env: &[(&str, &str)], user: &str, system: &str, expect: Expect) {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let files = Files { user: file("user.toml", user), system: file("system.toml", system) };
    let mut overrides = Overrides::default();
    for (key, value) in flags {
        overrides.set(*key, Some(*value));
    }
    let shown = match Config::load(&overrides, &variables(env), &files) {
        Ok(config) => config
            .table()
            .iter()
            .map(|row| format!("{} = {} ({})\n", row.key.name(), row.value, row.origin))
            .collect(),
        Err(error) => format!("{error}\n"),
    };
    expect.assert_eq(&shown.replace(&folder.path().display().to_string(), "DIR"));
}

#[test]
fn defaults() {
    check(&[], &[], "", "", expect![[r#""#]]);
}

#[test]
fn the_strongest_layer_wins_and_is_named() {
    let env = [("OLLAMA_HOST", "'127.0.0.1:1'"), ("DSK_HOST", " :2 "), ("OLLAMA_MODELS", "/m")];
    check(&[(Key::MaxLoaded, "3")], &env, USER, SYSTEM, expect![[r#""#]]);
}

#[test]
fn systemd_folders() {
    let env = [("STATE_DIRECTORY", "/var/lib/dsk:/x"), ("RUNTIME_DIRECTORY", "/run/dsk")];
    check(&[], &env, "socket = \"none\"\n", "", expect![[r#""#]]);
}

#[test]
fn every_problem_is_told_at_once() {
    let user = "# a comment\nkeepalive = 3\nmax_queue = -1\nlog = 1.5\n";
    let env = [("DSK_KEEP_ALIVE", "soon"), ("DSK_HOST", "0.0.0.0"), ("DSK_REGISTRY", "me:5000")];
    check(&[(Key::InsecureBind, "maybe")], &env, user, "a = \n", expect![[r#""#]]);
}

#[test]
fn a_public_address_needs_an_acknowledgement() {
    check(&[], &[("OLLAMA_HOST", "0.0.0.0")], "", "", expect![[r#""#]]);
    let mut overrides = Overrides::default();
    overrides.set(Key::InsecureBind, Some("true")).set(Key::Host, Some("0.0.0.0:1"));
    let config = Config::load(&overrides, &variables(&[]), &Files::default()).unwrap();
    assert_eq!(config.host.to_string(), "0.0.0.0:1");
}

#[test]
fn no_home_is_a_problem_with_a_remedy() {
    let nothing = BTreeMap::new();
    let error = Config::load(&Overrides::default(), &nothing, &Files::default()).unwrap_err();
    assert!(error.to_string().contains("DSK_HOME"), "{error}");
}

#[test]
fn values_reach_their_fields() {
    let env = [("DSK_KEEP_ALIVE", "-1"), ("DSK_CONTEXT_LENGTH", "4096"), ("DSK_MODELS", "~/m")];
    let files = Files::default();
    let config = Config::load(&Overrides::default(), &variables(&env), &files).unwrap();
    assert_eq!(config.keep_alive, KeepAlive::Forever);
    assert_eq!(config.context_length, Some(4096));
    assert_eq!(config.models, PathBuf::from("/home/ada/m"));
    assert_eq!(config.index_path(), PathBuf::from("/home/ada/.local/share/dsk/dsk.db"));
}
