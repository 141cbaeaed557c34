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
    check(
        &[],
        &[],
        "",
        "",
        expect![[r#"
            home = /home/ada/.local/share/dsk (default)
            models = /home/ada/.local/share/dsk/models (default)
            adopt = false (default)
            host = 127.0.0.1:11434 (default)
            socket = /run/user/7/dsk.sock (default)
            keep_alive = 5m (default)
            keep_alive_min = 0s (default)
            keep_alive_max = -1 (default)
            pinned =  (default)
            origins =  (default)
            registry =  (default)
            limit_rate = 0 (default)
            private_hosts =  (default)
            signatures = off (default)
            trusted_keys =  (default)
            lock_file =  (default)
            max_loaded = 0 (default)
            memory_reserve = auto (default)
            max_queue = 512 (default)
            context_length = 0 (default)
            runner_timeout = 15s (default)
            log = info (default)
            log_format = text (default)
            insecure_bind = false (default)
        "#]],
    );
}

#[test]
fn the_strongest_layer_wins_and_is_named() {
    let env = [("OLLAMA_HOST", "'127.0.0.1:1'"), ("DSK_HOST", " :2 "), ("OLLAMA_MODELS", "/m")];
    check(
        &[(Key::MaxLoaded, "3")],
        &env,
        USER,
        SYSTEM,
        expect![[r#"
            home = /home/ada/.local/share/dsk (default)
            models = /m (environment OLLAMA_MODELS)
            adopt = false (default)
            host = :2 (environment DSK_HOST)
            socket = /run/user/7/dsk.sock (default)
            keep_alive = 10m (DIR/user.toml:1)
            keep_alive_min = 0s (default)
            keep_alive_max = -1 (default)
            pinned =  (default)
            origins = https://a.test,https://b.test (DIR/user.toml:2)
            registry =  (default)
            limit_rate = 0 (default)
            private_hosts =  (default)
            signatures = off (default)
            trusted_keys =  (default)
            lock_file =  (default)
            max_loaded = 3 (flag)
            memory_reserve = auto (default)
            max_queue = 7 (DIR/system.toml:2)
            context_length = 0 (default)
            runner_timeout = 15s (default)
            log = info (default)
            log_format = text (default)
            insecure_bind = false (default)
        "#]],
    );
}

#[test]
fn systemd_folders() {
    let env = [("STATE_DIRECTORY", "/var/lib/dsk:/x"), ("RUNTIME_DIRECTORY", "/run/dsk")];
    check(
        &[],
        &env,
        "socket = \"none\"\n",
        "",
        expect![[r#"
            home = /var/lib/dsk (environment STATE_DIRECTORY)
            models = /var/lib/dsk/models (default)
            adopt = false (default)
            host = 127.0.0.1:11434 (default)
            socket = none (DIR/user.toml:1)
            keep_alive = 5m (default)
            keep_alive_min = 0s (default)
            keep_alive_max = -1 (default)
            pinned =  (default)
            origins =  (default)
            registry =  (default)
            limit_rate = 0 (default)
            private_hosts =  (default)
            signatures = off (default)
            trusted_keys =  (default)
            lock_file =  (default)
            max_loaded = 0 (default)
            memory_reserve = auto (default)
            max_queue = 512 (default)
            context_length = 0 (default)
            runner_timeout = 15s (default)
            log = info (default)
            log_format = text (default)
            insecure_bind = false (default)
        "#]],
    );
}

#[test]
fn every_problem_is_told_at_once() {
    let user = "# a comment\nkeepalive = 3\nmax_queue = -1\nlog = 1.5\n";
    let env = [("DSK_KEEP_ALIVE", "soon"), ("DSK_HOST", "0.0.0.0"), ("DSK_REGISTRY", "me:5000")];
    check(
        &[(Key::InsecureBind, "maybe")],
        &env,
        user,
        "a = \n",
        expect![[r#"
            DIR/system.toml:1: string values must be quoted, expected literal string
            DIR/user.toml:2: unknown key `keepalive`; the keys are home, models, adopt, host, socket, keep_alive, keep_alive_min, keep_alive_max, pinned, origins, registry, limit_rate, private_hosts, signatures, trusted_keys, lock_file, max_loaded, memory_reserve, max_queue, context_length, runner_timeout, log, log_format, insecure_bind and registries
            DIR/user.toml:4: `log` must be a string, a number, true or false
            environment DSK_KEEP_ALIVE: keep_alive: "soon" is not a duration: write seconds (300), a duration (5m, 1h30m), 0 or -1 (forever)
            environment DSK_REGISTRY: registry: "me:5000" is not an http:// or https:// address
            DIR/user.toml:3: max_queue: "-1" is not a whole number from 0 to 65536
            flag: insecure_bind: "maybe" is not true or false
            environment DSK_HOST: host 0.0.0.0:11434 can be reached by other machines, and anyone who reaches it can use, add and delete models: listen on 127.0.0.1, or accept this with --insecure-bind (insecure_bind = true, DSK_INSECURE_BIND=1)
        "#]],
    );
}

#[test]
fn a_public_address_needs_an_acknowledgement() {
    check(
        &[],
        &[("OLLAMA_HOST", "0.0.0.0")],
        "",
        "",
        expect![[r#"
        environment OLLAMA_HOST: host 0.0.0.0:11434 can be reached by other machines, and anyone who reaches it can use, add and delete models: listen on 127.0.0.1, or accept this with --insecure-bind (insecure_bind = true, DSK_INSECURE_BIND=1)
    "#]],
    );
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

#[test]
fn registries_have_tables() {
    let folder = tempfile::tempdir().unwrap();
    let load = |system: &str, user: &str| {
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let files = Files { user: file("user.toml", user), system: file("system.toml", system) };
        let loaded = Config::load(&Overrides::default(), &variables(&[]), &files);
        let place = format!("{}/", folder.path().display());
        match loaded {
            Ok(config) => format!("{:#?}", config.registries),
            Err(error) => error.to_string().replace(&place, ""),
        }
    };
    // The first of these is replaced although it is spelled in another way.
    let system =
        "[registries.\"r.lan.:5000\"]\ninsecure = true\n[registries.\"hub\"]\ninsecure = true";
    let user = "private_hosts = [\"s3.lan\"]\n[registries.\"R.lan:5000\"]\nca = \"~/ca.pem\"\n\
                mirrors = [\"https://m.lan\"]\nrealms = [\"auth.lan\"]\nproxy = \"none\"\n\
                signatures = \"require\"\ntrusted_keys = [\"~/maker.pub\"]\n";
    expect![[r#"
        {
            "hub": RegistryConfig {
                insecure: true,
                ca: None,
                mirrors: [],
                realms: [],
                proxy: System,
                trust: RegistryTrust {
                    signatures: None,
                    keys: None,
                },
            },
            "r.lan:5000": RegistryConfig {
                insecure: false,
                ca: Some(
                    "/home/ada/ca.pem",
                ),
                mirrors: [
                    Url {
                        scheme: "https",
                        cannot_be_a_base: false,
                        username: "",
                        password: None,
                        host: Some(
                            Domain(
                                "m.lan",
                            ),
                        ),
                        port: None,
                        path: "/",
                        query: None,
                        fragment: None,
                    },
                ],
                realms: [
                    "auth.lan",
                ],
                proxy: Direct,
                trust: RegistryTrust {
                    signatures: Some(
                        Require,
                    ),
                    keys: Some(
                        [
                            "/home/ada/maker.pub",
                        ],
                    ),
                },
            },
        }"#]]
    .assert_eq(&load(system, user));
    let wrong = "[registries.\"a/b\"]\n[registries.r]\ninsecure = 1\nca = 2\nmirrors = \"x\"\n\
                 realms = [3]\nproxy = \"x\"\nsignatures = 1\nport = 4\n[registries.s]\nmirrors = [\"ftp://x\"]\n\
                 signatures = \"maybe\"\n[registries.\"docker.io\"]\n[registries.\"index.docker.io\"]\n";
    expect![[r#"
        user.toml:1: "a/b" is no host, which is HOST or HOST:PORT
        user.toml:14: registries."index.docker.io": another table is for the same registry; keep one of them
        user.toml:4: registries."r".ca: must be the path of a PEM file
        user.toml:3: registries."r".insecure: must be true or false
        user.toml:5: registries."r".mirrors: must be a list of strings
        user.toml:9: registries."r".port: unknown key; the keys are insecure, ca, mirrors, realms, proxy, signatures, trusted_keys
        user.toml:7: registries."r".proxy: "x" is not an http:// or https:// address
        user.toml:6: registries."r".realms: must be a list of strings
        user.toml:8: registries."r".signatures: must be "off", "warn" or "require"
        user.toml:11: registries."s".mirrors: "ftp://x" is not an http:// or https:// address
        user.toml:12: registries."s".signatures: "maybe" is none of off, warn, require"#]]
    .assert_eq(&load("", wrong));
    assert!(load("registries = 3", "").contains("[registries.\"host\"]"));
}
