package release_test

import (
	"os"
	"path/filepath"
	"testing"
)

// A program that fails in the middle of a pipe makes no package. Nothing else can fail here: what is to be packed is empty, and no
// format is asked for that needs it.
func TestPackageSaysThatTarFails(t *testing.T) {
	r := newRepository(t)
	programs := t.TempDir()
	install := "#!/bin/sh\nmkdir -p bin/root/usr/share/man bin/root/usr/share/doc/campaign-credsync\n"
	for name, text := range map[string]string{"install": install, "tar": "#!/bin/sh\ncat >/dev/null; echo half; exit $TAR_EXITS\n"} {
		if err := os.WriteFile(filepath.Join(programs, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.env = append(r.env, "PATH="+programs+":"+os.Getenv("PATH"), "FORMATS= ") // make would trim it as an argument
	for _, exits := range []string{"0", "2"} {
		said, err := r.try(t, "env", "TAR_EXITS="+exits, "make", "package", "ARCHES=amd64", "MAKE="+filepath.Join(programs, "install"), "PACKAGE_VERSION=1.0.0")
		if (err == nil) != (exits == "0") {
			t.Errorf("tar exits with %s, and make: %v: %s", exits, err, said)
		}
	}
}
