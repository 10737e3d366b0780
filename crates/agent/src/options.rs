//! The agent's command line: the options of the table of settings, `--install`, and `--on-demand`.

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches,
    builder::{StringValueParser, TypedValueParser},
    error::ErrorKind,
};
use ratchet_install::Directories;
use ratchet_protocol::{DefaultValue, Group, LocalSettings, Setting, Settings, TablePart};

const ON_DEMAND: &str = "on_demand";
const INSTALL: &str = "install";

/// The options of `ratchet agent`. The keys of a CNI config with the same names mean the same.
#[derive(Debug, Clone, Default)]
pub struct AgentOptions {
    /// The settings on which the agent and the node's CNI configs must agree.
    pub settings: Settings,
    /// The socket, the state directory and the logs of this agent.
    pub local: LocalSettings,
    /// Whether the plugin started this agent because none answered. Such an agent gives way to a
    /// managed one and takes its settings from the plugin's config.
    pub on_demand: bool,
    /// Where the agent installs itself, if it does.
    pub install: Option<Directories>,
}

impl Args for AgentOptions {
    fn augment_args(command: Command) -> Command {
        let on_demand = Arg::new(ON_DEMAND).long("on-demand").hide(true);
        let command = command
            .args(arguments::<Settings>())
            .args(arguments::<LocalSettings>())
            .arg(install())
            .arg(on_demand.action(ArgAction::SetTrue));
        Directories::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for AgentOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut options = Self::default();
        options.update_from_arg_matches(matches)?;
        Ok(options)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        update(&mut self.settings, matches)?;
        update(&mut self.local, matches)?;
        self.on_demand = matches.get_flag(ON_DEMAND);
        let is_installed = matches.get_flag(INSTALL);
        self.install = is_installed
            .then(|| Directories::from_arg_matches(matches))
            .transpose()?;
        Ok(())
    }
}

/// The option by which the agent installs itself.
fn install() -> Arg {
    let summary = "Install this program as the node's plugin, and a network config that is the \
                   present network's with Ratchet as its last plugin";
    let details = "The config is 00-ratchet.conflist. It follows changes of the network's file; no \
                   other file is edited. When the agent stops, both stay. `ratchet uninstall` \
                   removes the config.";
    Arg::new(INSTALL)
        .long("install")
        .env("RATCHET_INSTALL")
        .action(ArgAction::SetTrue)
        .help(summary)
        .long_help(format!("{summary}\n\n{details}"))
}

/// Takes the values from the command line or the environment.
fn update<T: TablePart>(part: &mut T, matches: &ArgMatches) -> Result<(), clap::Error> {
    for setting in T::TABLE {
        if let Some(text) = matches.get_one::<String>(setting.key) {
            part.set(setting, text)
                .map_err(|error| clap::Error::raw(ErrorKind::ValueValidation, error))?;
        }
    }
    Ok(())
}

/// The options for a part of the table.
fn arguments<T: TablePart>() -> impl Iterator<Item = Arg> {
    T::TABLE.iter().filter_map(|setting| {
        let check = |text: String| T::default().set(setting, &text).map(|()| text);
        Some(argument(setting)?.value_parser(StringValueParser::new().try_map(check)))
    })
}

/// The option for a setting, without a check of its value.
fn argument(setting: &'static Setting) -> Option<Arg> {
    let option = setting.option?;
    let mut summary = setting.summary();
    if let DefaultValue::Value(default) | DefaultValue::Described(default) = setting.default {
        summary += &format!(" [default: {default}]");
    }
    let argument = Arg::new(setting.key)
        .long(option.flag)
        .value_name(option.value)
        .env(option.variable)
        .help(summary.clone());
    let argument = match setting.group {
        Group::General | Group::Store => argument,
        Group::Etcd => argument.help_heading("etcd"),
    };
    let details = setting.details();
    Some(if details.is_empty() {
        argument
    } else {
        argument.long_help(format!("{summary}\n\n{details}"))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use ratchet_protocol::Kind;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        agent: AgentOptions,
    }

    fn parse(arguments: &[String]) -> Result<AgentOptions, clap::Error> {
        let program = ["agent".to_owned()];
        Line::try_parse_from(program.iter().chain(arguments)).map(|line| line.agent)
    }

    fn example(kind: Kind) -> &'static str {
        match kind {
            Kind::Address => "192.0.2.1",
            Kind::Mtu => "1400",
            Kind::Vnis => "20-30",
            Kind::Seconds => "0",
            Kind::Count => "10",
            Kind::Wiring => "stitched",
            Kind::CrossNamespace => "deny",
            Kind::Listen => "0.0.0.0:9479",
            Kind::Flag => "true",
            _ => "text",
        }
    }

    #[test]
    fn each_setting_of_the_agent_has_an_option_that_counts() {
        fn check<T: TablePart>(of: impl Fn(&AgentOptions) -> &T) {
            for setting in T::TABLE {
                let flag = format!("--{}", setting.option.unwrap().flag);
                let value = example(setting.kind);
                let options = parse(&[flag, value.to_owned()]).unwrap();
                assert_eq!(of(&options).get(setting.key).as_deref(), Some(value));
            }
        }
        check(|options| &options.settings);
        check(|options| &options.local);
        assert!(!parse(&[]).unwrap().on_demand);
        assert!(parse(&["--on-demand".to_owned()]).unwrap().on_demand);
    }

    #[test]
    fn an_agent_installs_itself_only_if_it_is_told_to() {
        let install = |arguments: &[&str]| {
            let arguments = arguments.iter().map(ToString::to_string);
            parse(&arguments.collect::<Vec<_>>()).unwrap().install
        };
        assert!(install(&["--cni-dir", "/d"]).is_none());
        let usual = install(&["--install"]).unwrap();
        assert_eq!(usual.cni_dir, std::path::Path::new("/etc/cni/net.d"));
        let other = install(&["--install", "--cni-bin-dir", "/b"]).unwrap();
        assert_eq!(other.cni_bin_dir, std::path::Path::new("/b"));
    }

    #[test]
    fn what_the_plugin_starts_the_agent_with_is_what_it_has() {
        let settings = Settings::default().or_defaults();
        let read = parse(&settings.arguments()).unwrap();
        assert_eq!(read.settings, settings);
    }

    #[test]
    fn a_wrong_value_is_refused_with_what_is_expected() {
        for (option, expected) in [
            (
                "--mtu=67",
                "'67' for '--mtu <BYTES>': expected a number from 68 to 65535",
            ),
            ("--parent-address=x", "expected an IPv4 or IPv6 address"),
            ("--node=a b", "expected a node's name"),
            ("--node-timeout=-1", "expected a number of seconds"),
        ] {
            let error = parse(&[option.to_owned()]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_help_names_defaults_and_variables() {
        let help = Line::augment_args(Command::new("agent"))
            .render_long_help()
            .to_string();
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for text in [
            "[default: sqlite:/var/lib/ratchet/ratchet.db]",
            "[env: RATCHET_LOG=",
            "A node that comes back later",
            "etcd: --etcd-ca <FILE>",
        ] {
            assert!(words.contains(text), "{text}: {help}");
        }
        assert!(!help.contains("on-demand"), "{help}");
    }
}
