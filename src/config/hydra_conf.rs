//! The `hydra` part of every configuration, in our own files: the names and values that configurations refer to.

/// Files of the package `hydra.conf`.
pub(crate) const PACKAGE: &[(&str, &str)] = &[
    ("hydra/env/default.yaml", ""),
    (
        "hydra/help/default.yaml",
        "app_name: ${hydra.job.name}\n\
         header: |\n  ${hydra.help.app_name} composes its configuration as Hydra does.\n\
         footer: |\n  --hydra-help shows the options of the composition.\n\
         template: |\n  ${hydra.help.header}\n  == Configuration groups ==\n  $APP_CONFIG_GROUPS\n\n  == Config ==\n  $CONFIG\n\n  ${hydra.help.footer}\n",
    ),
    (
        "hydra/hydra_help/default.yaml",
        "template: |\n  == Flags ==\n  $FLAGS_HELP\n\n  == Configuration groups ==\n  $HYDRA_CONFIG_GROUPS\nhydra_help: ???\n",
    ),
    (
        "hydra/hydra_logging/default.yaml",
        "version: 1\nformatters:\n  simple:\n    format: '[%(asctime)s][HYDRA] %(message)s'\nhandlers:\n  console:\n    class: logging.StreamHandler\n    formatter: simple\n    stream: ext://sys.stdout\nroot:\n  level: INFO\n  handlers: [console]\nloggers:\n  logging_example:\n    level: DEBUG\ndisable_existing_loggers: false\n",
    ),
    (
        "hydra/hydra_logging/disabled.yaml",
        "version: 1\nroot:\n  level: ERROR\ndisable_existing_loggers: true\n",
    ),
    (
        "hydra/hydra_logging/hydra_debug.yaml",
        "version: 1\nformatters:\n  simple:\n    format: '[%(asctime)s][%(name)s][%(levelname)s] - %(message)s'\nhandlers:\n  file:\n    class: logging.FileHandler\n    mode: w\n    formatter: simple\n    filename: hydra-${hydra.job.name}.log\n    delay: true\nroot:\n  level: ERROR\n  handlers: [file]\nloggers:\n  hydra:\n    level: DEBUG\ndisable_existing_loggers: false\n",
    ),
    (
        "hydra/hydra_logging/none.yaml",
        "version: 1\nroot: null\ndisable_existing_loggers: false\n",
    ),
    (
        "hydra/job_logging/default.yaml",
        "version: 1\nformatters:\n  simple:\n    format: '[%(asctime)s][%(name)s][%(levelname)s] - %(message)s'\nhandlers:\n  console:\n    class: logging.StreamHandler\n    formatter: simple\n    stream: ext://sys.stdout\n  file:\n    class: logging.FileHandler\n    formatter: simple\n    filename: ${hydra.runtime.output_dir}/${hydra.job.name}.log\nroot:\n  level: INFO\n  handlers: [console, file]\ndisable_existing_loggers: false\n",
    ),
    (
        "hydra/job_logging/disabled.yaml",
        "version: 1\nroot:\n  level: ERROR\ndisable_existing_loggers: true\n",
    ),
    (
        "hydra/job_logging/none.yaml",
        "version: 1\nroot: null\ndisable_existing_loggers: false\n",
    ),
    (
        "hydra/job_logging/stdout.yaml",
        "version: 1\nformatters:\n  simple:\n    format: '%(message)s'\nhandlers:\n  console:\n    class: logging.StreamHandler\n    formatter: simple\n    stream: ext://sys.stdout\nroot:\n  level: INFO\n  handlers: [console]\ndisable_existing_loggers: false\n",
    ),
    (
        "hydra/output/default.yaml",
        "# @package hydra\nrun:\n  dir: outputs/${now:%Y-%m-%d}/${now:%H-%M-%S}\nsweep:\n  dir: multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}\n  subdir: ${hydra.job.num}\n",
    ),
];

/// Files of the source `structured://`.
pub(crate) const STRUCTURED: &[(&str, &str)] = &[
    (
        "hydra/config.yaml",
        "defaults:\n- output: default\n- launcher: basic\n- sweeper: basic\n- help: default\n- hydra_help: default\n- hydra_logging: default\n- job_logging: default\n- callbacks: null\n- env: default\n- _self_\n\
         mode: null\nsearchpath: []\nrun:\n  dir: ???\nsweep:\n  dir: ???\n  subdir: ???\nhydra_logging: ???\njob_logging: ???\nsweeper: ???\nlauncher: ???\ncallbacks: {}\n\
         help:\n  app_name: ???\n  header: ???\n  footer: ???\n  template: ???\nhydra_help:\n  hydra_help: ???\n  template: ???\noutput_subdir: .hydra\n\
         overrides:\n  hydra: []\n  task: []\n\
         job:\n  name: ???\n  chdir: null\n  override_dirname: ???\n  id: ???\n  num: ???\n  config_name: ???\n  env_set: {}\n  env_copy: []\n  config:\n    override_dirname:\n      kv_sep: '='\n      item_sep: ','\n      exclude_keys: []\n\
         runtime:\n  version: ???\n  version_base: ???\n  cwd: ???\n  config_sources: ???\n  output_dir: ???\n  choices: {}\n\
         verbose: false\n",
    ),
    (
        "hydra/launcher/basic.yaml",
        "_target_: hydra._internal.core_plugins.basic_launcher.BasicLauncher\n",
    ),
    (
        "hydra/sweeper/basic.yaml",
        "_target_: hydra._internal.core_plugins.basic_sweeper.BasicSweeper\nmax_batch_size: null\nparams: null\n",
    ),
];
