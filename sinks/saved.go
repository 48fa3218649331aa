package sinks

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/durable"
	"campaign-credsync/internal/lazyregexp"
	"campaign-credsync/internal/regularfile"
	"campaign-credsync/sinks/sharedfile"
)

// What is saved ahead of a run says whose content it is: by the next start the instance may have another file, and the content of the
// one must never get into the other.

// path is what cfg.File is called there.
func (i *Instance) path() string { return filepath.Clean(i.cfg.File) }

// saveFile saves the file's content ahead of a run that writes it.
func (i *Instance) saveFile(content []byte) error {
	if err := durable.WriteFile(i.savedOf, []byte(i.path())); err != nil {
		return err
	}
	return durable.WriteFile(i.saved, content)
}

// takeOverSaved makes its own what was saved of this file for an instance of another name, which had the file before: it was renamed after
// a crash. There must be nothing of its own.
func (i *Instance) takeOverSaved() error {
	files, err := os.ReadDir(i.cfg.StateDir)
	for _, f := range files {
		name, is := strings.CutSuffix(f.Name(), ".before.path")
		if is && name != i.cfg.Name && i.isOfThisFile(f.Name()) {
			err = errors.Join(err, i.takeOverFrom(name))
		}
	}
	if err != nil {
		return fmt.Errorf("take over the configuration saved before it was written: %w", err)
	}
	return nil
}

func (i *Instance) isOfThisFile(savedOf string) bool {
	of, err := readPath(filepath.Join(i.cfg.StateDir, savedOf))
	return err == nil && of == i.path()
}

// takeOverFrom waits for the run that it was saved for (credential.ErrStillRunning).
func (i *Instance) takeOverFrom(name string) error {
	lock, err := i.lockRunOf(name)
	if err != nil {
		return err
	}
	defer lock.Close()
	saved := filepath.Join(i.cfg.StateDir, name+".before")
	if !i.isOfThisFile(name + ".before.path") { // any more
		return nil
	}
	if err := durable.WriteFile(i.savedOf, []byte(i.path())); err != nil {
		return err
	}
	if err := os.Rename(saved, i.saved); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Remove(saved + ".path")
}

// readSaved returns the content of this file that was saved, if there is one. That of another file is set aside.
func (i *Instance) readSaved() (content []byte, is bool, err error) {
	content, err = regularfile.Read(i.saved, sharedfile.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, i.dropSaved()
	}
	var of string
	if err == nil {
		of, err = readPath(i.savedOf)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return content, true, nil
	case err != nil:
		return nil, false, fmt.Errorf("read the configuration saved before it was written: %w", err)
	case of == i.path():
		return content, true, nil
	}
	if err = i.setAside(i.saved, of); err == nil {
		err = i.dropSaved()
	}
	return nil, false, err
}

// readPath reads a file that holds a path. It is empty where something else is in that file, which is shown to nobody.
func readPath(file string) (path string, err error) {
	content, err := regularfile.Read(file, unix.PathMax)
	if path = string(content); filepath.IsAbs(path) && !strings.ContainsFunc(path, unicode.IsControl) {
		return path, err
	}
	return "", err
}

// dropSaved removes the saved file, and then what says whose it is.
func (i *Instance) dropSaved() error {
	for _, path := range []string{i.saved, i.savedOf} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the configuration saved before it was written: %w", err)
		}
	}
	return nil
}

// setAside renames what was saved of another file, so that nothing uses or overwrites it. A person may need it, as nobody ended what was
// under way with that file. Its name gets a number, and <that name>.path says whose it is.
func (i *Instance) setAside(saved, of string) error {
	aside := ""
	for n := 1; ; n++ {
		aside = fmt.Sprintf("%s.%d", saved, n)
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return fmt.Errorf("set aside what was saved of another file: %w", err)
		}
	}
	err := durable.WriteFile(aside+".path", []byte(of))
	if err == nil {
		err = os.Rename(saved, aside)
	}
	if err != nil {
		return fmt.Errorf("set aside what was saved of another file: %w", err)
	}
	i.log.Error("a run on another file was interrupted before config_file became this one; what was saved of that file is set aside",
		"path", i.cfg.File, "before", of, "file", aside,
		"remedy", "see whether the other file is as it should be, or put it right from what was saved; then remove that")
	return nil
}

// Aside is a file that waits for a person: nothing uses or removes it.
type Aside struct {
	Instance string
	Path     string
	Of       string // the configuration file whose content it has; empty: not known
}

// asideName is what setAside and putBack call such a file.
var asideName = lazyregexp.New(`^(.+)\.(?:(?:before|survey)\.[1-9][0-9]*|survey-original\.xml)$`)

// Asides lists those files of a state directory, also of instances that are configured no more.
func Asides(stateDir string) (asides []Aside, err error) {
	files, err := os.ReadDir(stateDir)
	for _, f := range files {
		if m := asideName().FindStringSubmatch(f.Name()); m != nil {
			path := filepath.Join(stateDir, f.Name())
			of, _ := readPath(path + ".path") // without it, a person has to know
			asides = append(asides, Aside{Instance: m[1], Path: path, Of: of})
		}
	}
	return asides, err
}
