//go:build systemd

package systemd

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// bundle is an unpacked image: a root file system, and what is to be run in it.
type bundle struct {
	dir  string
	spec map[string]any // of the OCI runtime specification
}

// makeImage returns the archive of "make image".
func makeImage(t *testing.T) string {
	t.Helper()
	dist := t.TempDir()
	if out, err := outside(t, "make", "image", "DIST="+dist, "ARCHES="+runtime.GOARCH, "PACKAGE_VERSION=1.0.0"); err != nil {
		t.Fatalf("%v\n%s", err, tail(out, 20))
	}
	return filepath.Join(dist, "campaign-credsync-1.0.0-"+runtime.GOARCH+".oci.tar")
}

// unpack unpacks the archive of an image that has this tag.
func unpack(t *testing.T, archive, tag string) bundle {
	t.Helper()
	layout, b := t.TempDir(), bundle{dir: filepath.Join(t.TempDir(), "bundle")}
	for _, command := range [][]string{
		{"tar", "--extract", "--file=" + archive, "--directory=" + layout},
		{"go", "tool", "-modfile=packaging/umoci.mod", "umoci", "unpack", "--image", layout + ":" + tag, b.dir},
	} {
		if out, err := outside(t, command...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	text, err := os.ReadFile(filepath.Join(b.dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &b.spec); err != nil {
		t.Fatal(err)
	}
	return b
}

// files are the files of the root file system, with all that an image says of them but the time.
func (b bundle) files(t *testing.T) map[string]string {
	t.Helper()
	root, found := filepath.Join(b.dir, "rootfs"), map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content := ""
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = string(text)
		}
		owner := info.Sys().(*syscall.Stat_t)
		found[strings.TrimPrefix(path, root)] = fmt.Sprintf("%s %d:%d %x", info.Mode(), owner.Uid, owner.Gid, content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestImageIsThatOfItsDockerfile has a program that builds Dockerfiles build it too.
func TestImageIsThatOfItsDockerfile(t *testing.T) {
	requireTools(t)
	archive := makeImage(t)
	if again := makeImage(t); read(t, again) != read(t, archive) {
		t.Error("two builds of the same commit differ")
	}
	ours := unpack(t, archive, "1.0.0")
	for path := range ours.files(t) {
		t.Logf("the image has %s", path)
	}

	context := t.TempDir()
	put(t, filepath.Join(context, "bin/campaign-credsync"), read(t, filepath.Join(ours.dir, "rootfs/usr/bin/campaign-credsync")), 0o755)
	put(t, filepath.Join(context, "LICENSE"), read(t, filepath.Join(repository(t), "LICENSE")), 0o644)
	others := unpack(t, buildDockerfile(t, "packaging/container/Dockerfile", context), "built")
	if want, got := others.files(t), ours.files(t); !reflect.DeepEqual(got, want) {
		for path := range want {
			if got[path] != want[path] {
				t.Errorf("%s is %.80s, by the Dockerfile %.80s", path, got[path], want[path])
			}
		}
		for path := range got {
			if want[path] == "" {
				t.Errorf("%s is not in the Dockerfile's image", path)
			}
		}
	}
	if want, got := others.spec["process"], ours.spec["process"]; !reflect.DeepEqual(got, want) {
		t.Errorf("the image runs %v, by the Dockerfile %v", got, want)
	}
}

// buildDockerfile returns the archive of an image with the tag built.
func buildDockerfile(t *testing.T, dockerfile, context string, arguments ...string) string {
	t.Helper()
	if !installed("buildah") {
		cannot(t, "buildah is not installed")
	}
	dir := t.TempDir()
	archive, policy := filepath.Join(dir, "image.tar"), filepath.Join(dir, "policy.json")
	put(t, policy, `{"default":[{"type":"insecureAcceptAnything"}]}`, 0o644)
	command := []string{"buildah", "--root=" + dir + "/storage", "--runroot=" + dir + "/run", "--storage-driver=vfs", "bud",
		"--signature-policy=" + policy, "--isolation=chroot", "--file=" + dockerfile, "--tag=oci-archive:" + archive + ":built"}
	for _, a := range arguments {
		command = append(command, "--build-arg="+a)
	}
	if out, err := outside(t, append(command, context)...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return archive
}

// put writes a file, and its directory where that is missing.
func put(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err == nil {
		err = os.WriteFile(file, []byte(text), mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
