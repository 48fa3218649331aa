package jsonfile_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"campaign-credsync/sources/jsonfile"
)

// Every way in which programs put a new content in place is seen, also the second time.
func TestFileIsFollowed(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(l *fileLab) // makes l.path readable
		put     func(l *fileLab, n int)
	}{
		{"in place", nil, func(l *fileLab, n int) { l.write(object("note", n)) }},
		{"renamed over, as Vault Agent does", nil, func(l *fileLab, n int) {
			l.must(os.WriteFile(l.path+".tmp", object("note", n), 0o600))
			l.must(os.Rename(l.path+".tmp", l.path))
		}},
		{"deleted and created", nil, func(l *fileLab, n int) { l.must(os.Remove(l.path)); l.write(object("note", n)) }},
		{"..data, as the kubelet does", func(l *fileLab) {
			kubelet(l, 0)
			l.must(os.Symlink("..data/credential.json", l.path))
		}, func(l *fileLab, n int) { kubelet(l, n) }},
		{"a link to another directory, in place there", func(l *fileLab) { l.elsewhere() },
			func(l *fileLab, n int) {
				target, err := os.Readlink(l.path)
				l.must(err)
				l.must(os.WriteFile(target, object("note", n), 0o600))
			}},
		{"a link to another directory, renamed there", func(l *fileLab) { l.elsewhere() },
			func(l *fileLab, n int) {
				target, err := os.Readlink(l.path)
				l.must(err)
				l.must(os.WriteFile(target+".tmp", object("note", n), 0o600))
				l.must(os.Rename(target+".tmp", target))
			}},
		{"a link that is turned to another directory", func(l *fileLab) { l.elsewhere() }, func(l *fileLab, n int) {
			old := l.path
			l.path = filepath.Join(filepath.Dir(old), "fresh")
			os.Remove(l.path)
			l.elsewhere()
			l.must(os.WriteFile(l.path, object("note", n), 0o600))
			l.must(os.Rename(l.path, old))
			l.path = old
		}},
		{"the directory itself is a link that is turned", func(l *fileLab) {
			dir := l.release(0)
			l.must(os.Symlink(dir, filepath.Join(filepath.Dir(l.path), "current")))
			l.path = filepath.Join(filepath.Dir(l.path), "current", "credential.json")
		}, func(l *fileLab, n int) {
			link := filepath.Dir(l.path)
			l.must(os.Symlink(l.release(n), link+".new"))
			l.must(os.Rename(link+".new", link))
		}},
		{"the directory is made anew", func(l *fileLab) {
			l.path = filepath.Join(filepath.Dir(l.path), "deep", "er", "credential.json")
			l.must(os.MkdirAll(filepath.Dir(l.path), 0o700))
			l.write(object("note", 0))
		}, func(l *fileLab, n int) {
			l.must(os.RemoveAll(filepath.Dir(filepath.Dir(l.path))))
			l.must(os.MkdirAll(filepath.Dir(l.path), 0o700))
			l.write(object("note", n))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newFileLab(t)
			if c.prepare != nil {
				c.prepare(l)
			} else {
				l.write(object("note", 0))
			}
			f := l.source()
			version := l.MustPoll(f, always).Version
			changed := l.follow(f)
			for n := 1; n <= 3; n++ {
				c.put(l, n)
				for seen := version; seen.Equal(version); {
					select {
					case <-changed:
					case <-time.After(time.Minute):
						t.Fatalf("change %d is not seen", n)
					}
					reading := l.MustPoll(f, always)
					l.Picked(reading)
					seen = reading.Version
					if !seen.Equal(version) {
						version = seen
						break
					}
				}
			}
			// Its end is seen, too.
			l.must(os.Rename(filepath.Dir(l.path), filepath.Dir(l.path)+".gone"))
			l.must(os.Rename(filepath.Dir(l.path)+".gone", filepath.Dir(l.path)))
			l.must(os.Remove(l.path))
			select {
			case <-changed:
			case <-time.After(time.Minute):
				t.Fatal("the end is not seen")
			}
		})
	}
}

// follow watches the file until the test ends.
func (l *fileLab) follow(f *jsonfile.File) (changed chan struct{}) {
	changed = make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		jsonfile.Watch(ctx, map[*jsonfile.File]func(){f: func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		}}, l.logger())
	}()
	l.T.Cleanup(func() { cancel(); <-ended })
	return changed
}

// kubelet puts a set of files in place as the kubelet's AtomicWriter does: a directory of its own, and ..data turned to it by a
// rename; the old one is removed.
func kubelet(l *fileLab, n int) {
	l.T.Helper()
	volume := filepath.Dir(l.path)
	dir := fmt.Sprintf("..2026_11_26_12_00_%02d.123456789", n)
	l.must(os.Mkdir(filepath.Join(volume, dir), 0o755))
	l.must(os.WriteFile(filepath.Join(volume, dir, "credential.json"), object("note", n), 0o600))
	old, _ := os.Readlink(filepath.Join(volume, "..data"))
	l.must(os.Symlink(dir, filepath.Join(volume, "..data_tmp")))
	l.must(os.Rename(filepath.Join(volume, "..data_tmp"), filepath.Join(volume, "..data")))
	if old != "" {
		l.must(os.RemoveAll(filepath.Join(volume, old)))
	}
}

// elsewhere makes the path a link to a file in another directory.
func (l *fileLab) elsewhere() {
	l.T.Helper()
	target := filepath.Join(l.T.TempDir(), "rendered.json")
	l.must(os.WriteFile(target, object("note", 0), 0o600))
	l.must(os.Symlink(target, l.path))
}

// release makes a directory with a file in it.
func (l *fileLab) release(n int) (dir string) {
	l.T.Helper()
	dir = l.T.TempDir()
	l.must(os.WriteFile(filepath.Join(dir, "credential.json"), object("note", n), 0o600))
	return dir
}
