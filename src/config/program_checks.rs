//! Checks of the settings of handlers that run programs or WebAssembly modules.

use super::builtin::Builtin;
use super::error::Problems;
use super::handler::{Handler, RunnerKind};
use super::units::ByteSize;
use crate::model::secret::MASK;
use crate::model::spec::is_content_type;

/// As in most file systems.
const FILE_NAME_BYTES_MAX: usize = 255;

impl Handler {
    pub(super) fn refuse_settings_of_programs(&self, path: &str, problems: &mut Problems) {
        let (is_process, is_wasm) = (self.runner == RunnerKind::Process, self.runner == RunnerKind::Wasm);
        let of_programs = [
            ("argv", !self.argv.is_empty()),
            ("env", !self.env.is_empty()),
            ("env_pass", !self.env_pass.is_empty()),
            ("content_type", self.content_type.is_some()),
            ("permanent_exit_codes", !self.permanent_exit_codes.is_empty()),
            ("retry_exit_codes", self.retry_exit_codes.is_some()),
            ("limits.memory", self.limits.memory.is_some() && self.builtin != Some(Builtin::Heavy)),
        ];
        let of_processes = [
            ("working_directory", self.working_directory.is_some()),
            ("user", self.user.is_some()),
            ("group", self.group.is_some()),
            ("nice", self.nice.is_some()),
            ("reports", self.reports),
            ("parents", self.parents),
            ("artifacts", self.artifacts),
            ("payload_file", self.payload_file.is_some()),
            ("result_file", self.result_file.is_some()),
            ("limits.cpu", self.limits.cpu.is_some()),
            ("limits.open_files", self.limits.open_files.is_some()),
            ("limits.file_size", self.limits.file_size.is_some()),
            ("limits.processes", self.limits.processes.is_some()),
        ];
        let of_modules = [("module", self.module.is_some()), ("clock", self.clock)];
        let mut refuse = |settings: &[(&str, bool)], runners: &str| {
            for (field, _) in settings.iter().filter(|(_, given)| *given) {
                problems.add(format!("{path}.{field}"), "", format!("is only allowed for runner = {runners}"));
            }
        };
        if !is_process && !is_wasm {
            refuse(&of_programs, "\"process\" or \"wasm\"");
        }
        if !is_process {
            refuse(&of_processes, "\"process\"");
        }
        if !is_wasm {
            refuse(&of_modules, "\"wasm\"");
        }
    }

    pub(super) fn check_wasm(&self, path: &str, problems: &mut Problems) {
        if !cfg!(feature = "wasm") {
            let description = "needs a server that was built with the feature `wasm`";
            problems.add(format!("{path}.runner"), "\"wasm\"", description);
        }
        if self.module.as_ref().is_none_or(|module| module.as_os_str().is_empty()) {
            let description = "is required for runner = \"wasm\", such as \"/modules/resize.wasm\"";
            problems.add(format!("{path}.module"), "", description);
        }
        if let Some(memory) = self.limits.memory.filter(|memory| *memory > ByteSize(4 << 30)) {
            problems.add(
                format!("{path}.limits.memory"),
                memory.to_string(),
                "must be at most 4GiB for runner = \"wasm\"",
            );
        }
        self.check_program(path, problems);
    }

    pub(super) fn check_process(&self, path: &str, problems: &mut Problems) {
        if self.argv.first().is_none_or(String::is_empty) {
            let description = "must contain a program for runner = \"process\", such as [\"/usr/bin/sort\", \"-n\"]";
            problems.add(format!("{path}.argv"), format!("{:?}", self.argv), description);
        }
        if self.parents && self.working_directory.is_some() {
            let description = "is not allowed with `working_directory`, which attempts share";
            problems.add(format!("{path}.parents"), "", description);
        }
        if self.working_directory.as_ref().is_some_and(|directory| directory.as_os_str().is_empty()) {
            problems.add(format!("{path}.working_directory"), "\"\"", "must not be empty");
        }
        for (field, value) in [("user", &self.user), ("group", &self.group)] {
            if value.as_ref().is_some_and(String::is_empty) {
                problems.add(format!("{path}.{field}"), "\"\"", "must not be empty");
            }
        }
        let with_user = [("group", self.group.is_some()), ("limits.processes", self.limits.processes.is_some())];
        for (field, _) in with_user.iter().filter(|(_, given)| *given && self.user.is_none()) {
            problems.add(format!("{path}.{field}"), "", "is only allowed with `user`");
        }
        if let Some(nice) = self.nice {
            problems.check_range(format!("{path}.nice"), nice, 0, 19);
        }
        self.check_files(path, problems);
        self.check_program(path, problems);
    }

    fn check_files(&self, path: &str, problems: &mut Problems) {
        for (field, file) in [("payload_file", &self.payload_file), ("result_file", &self.result_file)] {
            let Some(file) = file else { continue };
            let path = format!("{path}.{field}");
            let is_name = (1..=FILE_NAME_BYTES_MAX).contains(&file.len()) && !file.contains(['/', '\0']);
            if !is_name || matches!(&**file, "." | "..") {
                let description =
                    "must be the name of a file in the directory of the attempt: 1 to 255 bytes without `/`";
                problems.add(path, format!("{file:?}"), description);
            } else if self.working_directory.is_some() {
                problems.add(path, "", "is not allowed with `working_directory`, which attempts share");
            } else if field == "result_file" && self.reports {
                let description = "is not allowed with `reports`; let the program copy the file to `$LINESHAFT_RESULT`";
                problems.add(path, "", description);
            }
        }
    }

    fn check_program(&self, path: &str, problems: &mut Problems) {
        for (index, arg) in self.argv.iter().enumerate().filter(|(_, arg)| arg.contains('\0')) {
            problems.add(format!("{path}.argv[{index}]"), format!("{arg:?}"), "must not contain a NUL character");
        }
        let given =
            self.env.keys().map(|name| ("env", name)).chain(self.env_pass.iter().map(|name| ("env_pass", name)));
        for (field, name) in given.filter(|(_, name)| name.is_empty() || name.contains(['=', '\0'])) {
            let description = "must be the name of an environment variable: not empty, without = and NUL";
            // After the `=` there may be a secret.
            let shown = name.split('=').next().unwrap_or_default();
            problems.add(format!("{path}.{field}"), format!("{shown:?}"), description);
        }
        // The values may be secret and are not shown.
        for (name, _) in self.env.iter().filter(|(_, value)| value.reveal() == MASK) {
            problems.add(
                format!("{path}.env.{name}"),
                "",
                "is the mask that `config dump` prints instead of the value; set the value itself",
            );
        }
        for (name, _) in self.env.iter().filter(|(_, value)| value.reveal().contains('\0')) {
            problems.add(format!("{path}.env.{name}"), "", "must not contain a NUL character");
        }
        if let Some(content_type) = self.content_type.as_ref().filter(|text| !is_content_type(text)) {
            let description = "must be 1 to 128 printable ASCII characters, such as \"application/json\"";
            problems.add(format!("{path}.content_type"), format!("{content_type:?}"), description);
        }
        self.limits.check(&format!("{path}.limits"), problems);
    }
}
