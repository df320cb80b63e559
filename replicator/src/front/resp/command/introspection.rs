//! COMMAND: what redis-cli and cluster clients ask about the table.

use super::{Context, Keys, Plan, Planned, Refusal, Spec, TABLE, at, find, is_word, shown};
use crate::front::resp::reply::Writer;
use crate::front::resp::request::Arguments;

/// COMMAND `[COUNT|LIST|INFO name …|DOCS name …|GETKEYS command …]`
pub fn command<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let writer = &mut context.writer;
    let Some(subcommand) = arguments.get(1) else {
        writer.array(TABLE.len());
        for spec in &TABLE {
            describe(spec, writer);
        }
        return Ok(Plan::Written);
    };
    if is_word(subcommand, "COUNT") && arguments.len() == 2 {
        writer.integer(i64::try_from(TABLE.len()).unwrap_or(i64::MAX));
    } else if is_word(subcommand, "LIST") && arguments.len() == 2 {
        writer.array(TABLE.len());
        for spec in &TABLE {
            writer.bulk(spec.name.as_bytes());
        }
    } else if is_word(subcommand, "INFO") {
        if arguments.len() == 2 {
            writer.array(TABLE.len());
            for spec in &TABLE {
                describe(spec, writer);
            }
            return Ok(Plan::Written);
        }
        writer.array(arguments.len() - 2);
        for name in arguments.from(2) {
            match find(name) {
                Some((_, spec)) => describe(spec, writer),
                None => writer.nil_array(),
            }
        }
    } else if is_word(subcommand, "DOCS") {
        docs(&arguments, writer);
    } else if is_word(subcommand, "GETKEYS") && arguments.len() > 2 {
        get_keys(&arguments, writer)?;
    } else {
        return Err(Refusal::Subcommand {
            command: "COMMAND",
            name: shown(subcommand),
        });
    }
    Ok(Plan::Written)
}

fn docs(arguments: &Arguments<'_>, writer: &mut Writer<'_>) {
    let specs: Vec<&Spec> = if arguments.len() == 2 {
        TABLE.iter().collect()
    } else {
        arguments
            .from(2)
            .filter_map(|name| find(name).map(|(_, spec)| spec))
            .collect()
    };
    writer.map(specs.len());
    for spec in specs {
        writer.bulk(spec.name.as_bytes());
        writer.map(1);
        writer.bulk(b"arity");
        writer.integer(spec.arity);
    }
}

fn get_keys(arguments: &Arguments<'_>, writer: &mut Writer<'_>) -> Result<(), Refusal> {
    let (_, spec) = find(at(arguments, 2)?).ok_or(Refusal::Other("ERR Invalid command specified"))?;
    let inner = arguments.skip(2);
    if !spec.takes(inner.len()) {
        return Err(Refusal::Other(
            "ERR Invalid number of arguments specified for command",
        ));
    }
    let keys: Vec<&[u8]> = spec
        .key_places(&inner)
        .filter_map(|place| inner.get(place))
        .collect();
    if keys.is_empty() {
        return Err(Refusal::Other("ERR The command has no key arguments"));
    }
    writer.array(keys.len());
    for key in keys {
        writer.bulk(key);
    }
    Ok(())
}

fn describe(spec: &Spec, writer: &mut Writer<'_>) {
    let (first, last, step) = match spec.keys {
        Keys::None | Keys::Counted(_) => (0, 0, 0),
        Keys::Range { first, last, step } => (
            i64::try_from(first).unwrap_or(0),
            i64::try_from(last).unwrap_or(0),
            i64::try_from(step).unwrap_or(0),
        ),
    };
    writer.array(10);
    writer.bulk(spec.name.as_bytes());
    writer.integer(spec.arity);
    let flags = [
        (spec.flags.write, "write"),
        (!spec.flags.write && spec.keys != Keys::None, "readonly"),
        (spec.flags.before_auth, "no_auth"),
        (spec.flags.outside_multi, "no_multi"),
        (matches!(spec.keys, Keys::Counted(_)), "movablekeys"),
    ];
    writer.set(flags.iter().filter(|(set, _)| *set).count());
    flags
        .iter()
        .filter(|(set, _)| *set)
        .for_each(|(_, name)| writer.status(name));
    writer.integer(first);
    writer.integer(last);
    writer.integer(step);
    // ACL categories, tips, key specifications, subcommands: none.
    writer.set(0);
    writer.array(0);
    writer.array(0);
    writer.array(0);
}
