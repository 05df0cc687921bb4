//! `lineshaft context`: edits the named connections of the user.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use crate::model::id::check_name;

use super::contexts::{self, Context, Contexts};
use super::error::{CliError, Exit};
use super::options::GlobalOptions;
use super::output;
use super::table::{Column, Table, TableArgs};
use super::view::{self, Cell, Text, View};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Save a connection: --server, --token-file, --tls-ca, --tls-cert and --tls-key
    ///
    /// The file of contexts has paths of secrets, but no secret.
    Add {
        /// Name of the context
        name: String,
    },
    /// Let commands use a context by default; --context, LINESHAFT_CONTEXT, --server and LINESHAFT_SERVER override it
    Use {
        /// Name of the context
        #[arg(add = contexts::completer())]
        name: String,
    },
    /// List contexts
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        table: TableArgs,
    },
    /// Show a context
    Show {
        /// Name of the context [default: the one in use]
        #[arg(add = contexts::completer())]
        name: Option<String>,
    },
    /// Remove a context
    Remove {
        /// Name of the context
        #[arg(add = contexts::completer())]
        name: String,
    },
}

pub fn run(command: Command, options: &GlobalOptions) -> Exit {
    let result = match command {
        Command::Add { name } => add(&name, options),
        Command::Use { name } => edit(|contexts| {
            contexts.get(&name)?;
            contexts.current = Some(name);
            Ok(())
        }),
        Command::List { table } => list(&table, options),
        Command::Show { name } => show(name, options),
        Command::Remove { name } => edit(|contexts| {
            contexts.get(&name)?;
            contexts.by_name.remove(&name);
            contexts.current.take_if(|current| *current == name);
            Ok(())
        }),
    };
    match result {
        Ok(()) => Exit::Success,
        Err(error) => error.report(options.json()),
    }
}

fn edit(change: impl FnOnce(&mut Contexts) -> Result<(), CliError>) -> Result<(), CliError> {
    let mut contexts = Contexts::read()?;
    change(&mut contexts)?;
    contexts.write()
}

fn add(name: &str, options: &GlobalOptions) -> Result<(), CliError> {
    check_name(name).map_err(|error| CliError::Usage(format!("the name {name:?} {error}")))?;
    let context = options.to_context()?;
    edit(|contexts| {
        if contexts.by_name.contains_key(name) {
            return Err(CliError::Usage(format!(
                "a context {name:?} already exists; remove it or choose another name"
            )));
        }
        contexts.by_name.insert(name.to_owned(), context);
        Ok(())
    })?;
    output::status(format_args!("Context {name:?} added; run `lineshaft context use {name}` to use it by default"));
    Ok(())
}

/// A context with its name.
#[derive(Debug)]
struct Named {
    name: String,
    is_current: bool,
    context: Context,
}

static COLUMNS: [Column<Named>; 5] = [
    Column::new("NAME", 0, |named, _| named.name.as_str().into()),
    Column::new("IN USE", 0, |named, _| if named.is_current { "*" } else { "" }.into()),
    Column::new("SERVER", 0, |named, _| named.context.server.as_str().into()),
    Column::text("TOKEN FILE", 1, |named, _| shown(named.context.token_file.as_deref())),
    Column::new("TLS", 2, |named, _| {
        let Context { tls_ca, tls_cert, .. } = &named.context;
        let parts = [(tls_ca, "ca"), (tls_cert, "certificate")].map(|(path, name)| path.as_ref().map(|_| name));
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ").into()
    }),
];

fn shown(path: Option<&Path>) -> Cell {
    path.map(|path| path.display().to_string()).unwrap_or_default().into()
}

fn list(table: &TableArgs, options: &GlobalOptions) -> Result<(), CliError> {
    let table = Table::new(&COLUMNS, table)?;
    let contexts = Contexts::read()?;
    let named = |(name, context): (String, Context)| Named {
        is_current: contexts.current.as_ref() == Some(&name),
        name,
        context,
    };
    let mut rows: Vec<_> = contexts.by_name.into_iter().map(named).collect();
    let view = View::of_stdout(options.time);
    table.sort(&mut rows, &view);
    if options.json() {
        for row in &rows {
            output::stdout_line(document(row)?);
        }
        return Ok(());
    }
    print(table.text(&rows, &view));
    Ok(())
}

fn show(name: Option<String>, options: &GlobalOptions) -> Result<(), CliError> {
    let contexts = Contexts::read()?;
    let name = name.or_else(|| contexts.current.clone());
    let name = name.ok_or_else(|| CliError::Usage("no context is in use; name one".to_owned()))?;
    let is_current = contexts.current.as_ref() == Some(&name);
    let named = Named { is_current, context: contexts.get(&name)?.clone(), name };
    if options.json() {
        output::stdout_line(document(&named)?);
        return Ok(());
    }
    let Context { server, token_file, tls_ca, tls_cert, tls_key } = &named.context;
    let path = |path: &Option<PathBuf>| shown(path.as_deref());
    print(view::fields(
        &View::of_stdout(options.time),
        &[
            ("name", named.name.as_str().into()),
            ("in use", if is_current { "yes" } else { "no" }.into()),
            ("server", server.as_str().into()),
            ("token file", path(token_file)),
            ("tls ca", path(tls_ca)),
            ("tls cert", path(tls_cert)),
            ("tls key", path(tls_key)),
        ],
    ));
    Ok(())
}

fn document(named: &Named) -> Result<Value, CliError> {
    let mut value = serde_json::to_value(&named.context).map_err(|error| CliError::Usage(error.to_string()))?;
    value["name"] = json!(named.name);
    value["in_use"] = json!(named.is_current);
    Ok(value)
}

fn print(text: Text) {
    if !text.is_empty() {
        output::stdout_line(text);
    }
}
