//go:build systemd

package systemd

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// enterGroups is a shell script: it moves itself into the control groups that are named before "--", and becomes the
// command behind it.
const enterGroups = `while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit; shift; done; shift; exec "$@"`

// controlGroups makes control groups for a container, below this process's own: systemd-nspawn always takes the same names
// below where it is, and would share them with another container and leave them behind. They are removed at the end of
// the test. None are made where systemd's hierarchies are not found or not writable; then it has to do without.
func controlGroups(t *testing.T, name string) []string {
	var made []string
	for _, parent := range ownGroups() {
		dir := filepath.Join(parent, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Logf("without a control group of its own: %v", err)
			continue
		}
		made = append(made, dir)
	}
	t.Cleanup(func() {
		for _, dir := range made {
			// The kernel needs a moment after the end of the last process.
			await(t, "the end of control group "+dir, patience, func() bool { return removeGroup(dir) })
		}
	})
	return made
}

// removeGroup removes the directories, deepest first; the files in them belong to the kernel.
func removeGroup(dir string) bool {
	var dirs []string
	filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, d := range slices.Backward(dirs) {
		os.Remove(d)
	}
	_, err := os.Stat(dir)
	return os.IsNotExist(err)
}

// ownGroups finds this process in the hierarchies that systemd uses: the unified one, and in a hybrid setup also the one
// named systemd.
func ownGroups() []string {
	paths := map[string]string{} // controller list of /proc/self/cgroup → path
	groups, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(groups)) {
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 {
			paths[parts[1]] = parts[2]
		}
	}
	var found []string
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		mount := strings.Fields(line) // device, directory, type, options
		if len(mount) < 4 {
			continue
		}
		hierarchy, known := "", mount[2] == "cgroup2"
		if mount[2] == "cgroup" && slices.Contains(strings.Split(mount[3], ","), "name=systemd") {
			hierarchy, known = "name=systemd", true
		}
		if path, in := paths[hierarchy]; known && in {
			found = append(found, filepath.Join(mount[1], path))
		}
	}
	return found
}
