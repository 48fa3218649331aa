package main

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// toolHelp is what --standin-help prints. These switches are the stand-in's
// own; nlserver has nothing of the kind.
const toolHelp = `nlserver stand-in: a substitute for Adobe Campaign's nlserver, for tests.

  --standin-layout <home>             make a Campaign home: bin, conf, lib, var, env.sh,
                                      and this executable as bin/nlserver
  --standin-instance <home> <name>    write conf/config-<name>.xml; never over an existing one
  --standin-faults <home> [<json>|-]  check and set the fault switches ("-": standard input);
                                      without them: no faults
  --standin-assumptions <home> [<file>]  behave as that file says, which has the form of
                                      assumptions.json, or is the JSON report of a survey;
                                      without it: as built
  --standin-decrypt <value>           print the plaintext of an attribute that it encrypted
  --standin-watchdog <home>           start the modules in $STANDIN_MODULES, and those that a
                                      restart asks for
  --standin-module <home> <module> <lines>
                                      be a module, which prints so many lines
  --standin-help                      this text

README.md beside the source describes the fault switches and the run log.
`

// The files of a fresh home. @HOME@ and @NAME@ are filled in.
//
//go:embed layout
var layout embed.FS

// runTool answers the stand-in's own switches. They need neither a home to run
// from nor env.sh.
func runTool(name string, args []string, stdout, stderr io.Writer) int {
	var err error
	switch {
	case name == "--standin-layout" && len(args) == 1:
		err = layOutHome(args[0])
	case name == "--standin-instance" && len(args) == 2:
		err = writeInstance(args[0], args[1])
	case name == "--standin-faults" && (len(args) == 1 || len(args) == 2):
		err = setFaults(args[0], args[1:])
	case name == "--standin-assumptions" && (len(args) == 1 || len(args) == 2):
		err = setAssumptions(args[0], args[1:])
	case name == "--standin-decrypt" && len(args) == 1:
		var plaintext string
		if plaintext, err = decrypt(args[0]); err == nil {
			fmt.Fprintln(stdout, plaintext)
		}
	case name == "--standin-hold" && len(args) == 1: // the child of fork_child
		var d time.Duration
		if d, err = time.ParseDuration(args[0]); err == nil {
			time.Sleep(d)
		}
	case name == "--standin-module" && len(args) == 3: // the child of module_lines
		err = beModule(args[0], args[1], args[2], stdout, stderr)
	case name == "--standin-watchdog" && len(args) == 1:
		err = beWatchdog(args[0], strings.Fields(os.Getenv("STANDIN_MODULES")))
	case name == "--standin-help":
		io.WriteString(stdout, toolHelp)
	default:
		fmt.Fprintln(stderr, "nlserver stand-in: wrong use of", name)
		io.WriteString(stderr, toolHelp)
		return exitUsage
	}
	if err != nil {
		fmt.Fprintln(stderr, "nlserver stand-in:", err)
		return exitFailed
	}
	return exitOK
}

// layOutHome may be repeated: it brings executable and env.sh up to date and
// leaves the configuration alone.
func layOutHome(home string) error {
	home, err := filepath.Abs(home)
	if err != nil {
		return err
	}
	for _, dir := range []string{"bin", "conf", "lib", "var/standin"} {
		if err := os.MkdirAll(filepath.Join(home, dir), 0o755); err != nil {
			return err
		}
	}
	own, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(home, "bin", "nlserver"), own, 0o755); err != nil {
		return err
	}
	script, err := template("env.sh", "@HOME@", shellQuote(home))
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(home, "env.sh"), script, 0o644); err != nil {
		return err
	}
	err = createFromTemplate(filepath.Join(home, "conf", "config-default.xml"), "config-default.xml")
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

func writeInstance(home, name string) error {
	if !isInstanceName(name) {
		return fmt.Errorf("%q is no name of an instance", name)
	}
	path := filepath.Join(home, "conf", "config-"+name+".xml")
	return createFromTemplate(path, "config-instance.xml", "@NAME@", escapeValue(name))
}

// setFaults checks the switches before it puts them in force, and replaces the
// file at once: a run sees the old ones or the new ones.
func setFaults(home string, text []string) error {
	path := faultsFile(home)
	if len(text) == 0 {
		if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	switches := []byte(text[0])
	if text[0] == "-" {
		var err error
		if switches, err = io.ReadAll(os.Stdin); err != nil {
			return err
		}
	}
	if _, err := parseFaults(switches); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(releasedFile(home)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return replaceFile(path, switches, 0o644)
}

func template(name string, oldNew ...string) ([]byte, error) {
	text, err := layout.ReadFile("layout/" + name)
	if err != nil {
		return nil, err
	}
	return []byte(strings.NewReplacer(oldNew...).Replace(string(text))), nil
}

func createFromTemplate(path, name string, oldNew ...string) error {
	text, err := template(name, oldNew...)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	if _, err := file.Write(text); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}

// replaceFile renames into place: bin/nlserver may be running, and then cannot
// be written to.
func replaceFile(path string, text []byte, mode os.FileMode) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), ".standin-*")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name()) // gone already once it was renamed
	_, err = temporary.Write(text)
	if err := errors.Join(err, temporary.Chmod(mode), temporary.Close()); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
