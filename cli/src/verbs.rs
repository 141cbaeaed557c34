//! The verbs, one per file: its arguments, what it does, what it prints.

pub(crate) mod bench;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod df;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod fit;
pub(crate) mod gc;
pub(crate) mod link;
pub(crate) mod list;
pub(crate) mod lock;
pub(crate) mod logs;
pub(crate) mod pin;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod registry;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod show;
pub(crate) mod stop;
pub(crate) mod top;
pub(crate) mod verify;
pub(crate) mod version;

use crate::args::{Cli, Verb};
use crate::connection::block_on;
use crate::exit::Exit;
use crate::terminal::Terminal;

/// Runs the verb that was typed.
pub(crate) fn dispatch(cli: Cli, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let shared = cli.shared;
    match cli.verb {
        Verb::Serve(args) => serve::serve(&shared, &args),
        Verb::Registry(verb) => registry::registry(verb, terminal),
        Verb::Bench(args) => bench::bench(&args, terminal),
        Verb::Completion(args) => completion::completion(&args, terminal),
        Verb::Config(args) => config::config(&shared, &args, terminal),
        Verb::Run(args) => block_on(run::run(&shared, args, terminal)),
        Verb::Pull(args) => block_on(pull::pull(&shared, &args, terminal)),
        Verb::Push(args) => block_on(pull::push(&shared, &args, terminal)),
        Verb::Fit(args) => block_on(fit::fit(&shared, &args, terminal)),
        Verb::List(args) => block_on(list::list(&shared, &args, terminal)),
        Verb::Logs(args) => block_on(logs::logs(&shared, &args, terminal)),
        Verb::Ps(args) => block_on(ps::ps(&shared, &args, terminal)),
        Verb::Top(args) => block_on(top::top(&shared, &args, terminal)),
        Verb::Pin(args) => block_on(pin::pin(&shared, &args, terminal)),
        Verb::Unpin(args) => block_on(pin::unpin(&shared, &args, terminal)),
        Verb::Yield(args) => block_on(pin::yield_memory(&shared, &args, terminal)),
        Verb::Show(args) => block_on(show::show(&shared, &args, terminal)),
        Verb::Stop(args) => block_on(stop::stop(&shared, &args, terminal)),
        Verb::Link(args) => block_on(link::link(&shared, &args, terminal)),
        Verb::Import(args) => block_on(link::import(&shared, &args, terminal)),
        Verb::Export(args) => block_on(export::export(&shared, &args, terminal)),
        Verb::Verify(args) => block_on(verify::verify(&shared, &args, terminal)),
        Verb::Df(args) => block_on(df::df(&shared, &args, terminal)),
        Verb::Gc(args) => block_on(gc::gc(&shared, &args, terminal)),
        Verb::Rm(args) => block_on(rm::rm(&shared, &args, terminal)),
        Verb::Cp(args) => block_on(cp::cp(&shared, &args, terminal)),
        Verb::Create(args) => block_on(create::create(&shared, &args, terminal)),
        Verb::Doctor(args) => block_on(doctor::doctor(&shared, &args, terminal)),
        Verb::Version(args) => block_on(version::version(&shared, &args, terminal)),
        // `main` took it before there was anything to dispatch.
        Verb::Runner => Ok(Exit::Usage),
    }
}
