package faults_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"campaign-credsync/test/world"
)

// The power fails at any moment of a rotation and of a revert: what the file system may have kept by then is put together from
// a traced run, and a daemon is started on it. It ends in sync, the file whole, with nothing left behind; and where the file was
// torn, it is whole before Vault is asked.
//
// The model is what POSIX promises and no more: the content of a file is kept when fsync of that file has returned, a name when fsync
// of its directory has. Of later changes each may be kept or not, in any combination: of names those of one call together, of a content
// any state that it had, none of it, a half, or NUL bytes.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	tracer := buildTracer(t)
	damage := rotation
	damage.name = "rotation whose first run leaves half a file"
	damage.begin = func(s *sweep) {
		s.w.Faults(`{"write_half": true, "times": 1}`)
		rotation.begin(s)
	}
	for _, change := range []change{rotation, damage, revert, revertOfNewFile} {
		t.Run(change.name, func(t *testing.T) {
			t.Parallel()
			s := startSweep(t, world.Plain())
			had := s.secret
			conf, state := filepath.Dir(s.w.File("prod")), s.w.StateDir()
			s.trace(tracer, "-list", "-files", conf, "-files", state)
			s.undisturbed(change)
			all := losses(afterTheEdit(s.tracing.calls, conf), s.tracing.last)
			torn := func(d disk) bool { return world.WellFormed(d[conf]["config-prod.xml"].Data) != nil }
			var whole, halves []disk
			for _, d := range all {
				if torn(d) {
					halves = append(halves, d)
				} else {
					whole = append(whole, d)
				}
			}
			tried := slices.Concat(some(whole), some(halves))
			for i, kept := range tried {
				s.w.Kill()
				for dir, names := range kept {
					putDisk(t, dir, names)
				}
				at := call{Call: "power loss", N: i + 1}
				if torn(kept) {
					s.wholeWithoutVault(at, had)
				} else {
					s.w.StartDaemon()
				}
				s.settles(at)
				s.w.Holds("prod", s.secret)
				s.w.Check()
				if t.Failed() {
					t.Fatalf("what was kept: %v", kept)
				}
			}
			t.Logf("%d states of the disk, %d of them with a torn file; %d tried", len(all), len(halves), len(tried))
		})
	}
}

// afterTheEdit leaves out the calls that came before a revert had its drift: what an editor leaves unsynced is its own business.
func afterTheEdit(calls []call, conf string) []call {
	exchange := slices.IndexFunc(calls, func(c call) bool { return c.Call == "renameat2" })
	if exchange < 0 {
		return calls
	}
	edited := calls[exchange].Files[conf]["config-prod.xml"]
	began := slices.IndexFunc(calls, func(c call) bool {
		file, others := c.Files[conf]["config-prod.xml"], 0
		for name := range c.Files[conf] {
			if strings.HasPrefix(name, ".edited-") {
				others++
			}
		}
		return file.ID == edited.ID && bytes.Equal(file.Data, edited.Data) && others == 0
	})
	return calls[began:]
}

// wholeWithoutVault starts a daemon while Vault is gone, and waits until the file is whole, with the credential of before or the new one.
func (s *sweep) wholeWithoutVault(at call, had string) {
	s.w.T.Helper()
	s.w.Proxy.Down()
	s.w.StartDaemon()
	s.w.Eventually(fmt.Sprintf("the file is whole after %v, without Vault", at), func() bool {
		secret, err := s.w.SecretOnDisk(s.w.Ctx, "prod")
		return err == nil && (secret == had || secret == s.secret)
	})
	s.w.Must(s.w.Proxy.Up())
	s.w.Signal(syscall.SIGUSR1)
}

// some takes a few of the states, spread evenly; the long form takes all.
func some(all []disk) (few []disk) {
	const enough = 12
	if *full || len(all) <= enough {
		return all
	}
	for i := range enough {
		few = append(few, all[i*len(all)/enough])
	}
	return few
}

// disk is what two directories hold, by directory and name.
type disk map[string]map[string]tracedFile

func (d disk) String() string {
	var b bytes.Buffer
	for _, dir := range slices.Sorted(maps.Keys(d)) {
		for _, name := range slices.Sorted(maps.Keys(d[dir])) {
			data := d[dir][name].Data
			fmt.Fprintf(&b, "\n%s/%s: %d bytes, %.60q", dir, name, len(data), data)
		}
	}
	return b.String()
}

// losses returns what may be on disk when the power fails before any of the calls, or after the last. What the first of them finds is
// taken for kept.
func losses(calls []call, last disk) (all []disk) {
	calls = slices.DeleteFunc(slices.Clone(calls), func(c call) bool { return c.Files == nil })
	calls = append(calls, call{Files: last})
	seen := map[[sha256.Size]byte]bool{}
	for k := range calls {
		for _, kept := range lossesBefore(calls[:k+1]) {
			if sum := sha256.Sum256([]byte(fmt.Sprintf("%v", kept.contents()))); !seen[sum] {
				seen[sum] = true
				all = append(all, kept)
			}
		}
	}
	return all
}

func (d disk) contents() map[string]string {
	all := map[string]string{}
	for dir, names := range d {
		for name, f := range names {
			all[filepath.Join(dir, name)] = string(f.Data)
		}
	}
	return all
}

// lossesBefore returns what may be on disk before the last of calls is done.
func lossesBefore(calls []call) []disk {
	states := []disk{{}}
	for _, dir := range slices.Sorted(maps.Keys(calls[0].Files)) {
		var next []disk
		for _, state := range states {
			for _, names := range namesKept(calls, dir) {
				for _, files := range contentsKept(calls, names) {
					both := maps.Clone(state)
					both[dir] = files
					next = append(next, both)
				}
			}
		}
		states = next
	}
	return states
}

// namesKept returns which file each name of a directory may show.
func namesKept(calls []call, dir string) []map[string]string {
	names := func(c call) map[string]string {
		ids := map[string]string{}
		for name, f := range c.Files[dir] {
			ids[name] = f.ID
		}
		return ids
	}
	now := len(calls) - 1
	from := 0
	for i, c := range calls[:now] {
		if c.Call == "fsync" && c.On == dir {
			from = i
		}
	}
	var changes []map[string]string // a name that is gone shows ""
	for i := from; i < now; i++ {
		was, is, change := names(calls[i]), names(calls[i+1]), map[string]string{}
		for name := range was {
			if is[name] != was[name] {
				change[name] = is[name]
			}
		}
		for name, id := range is {
			if was[name] == "" {
				change[name] = id
			}
		}
		if len(change) > 0 {
			changes = append(changes, change)
		}
	}
	var all []map[string]string
	for subset := range 1 << len(changes) {
		kept := names(calls[from])
		for i, change := range changes {
			if subset>>i&1 == 1 {
				maps.Copy(kept, change)
			}
		}
		maps.DeleteFunc(kept, func(_, id string) bool { return id == "" })
		all = append(all, kept)
	}
	return all
}

// contentsKept returns what those files may hold.
func contentsKept(calls []call, names map[string]string) []map[string]tracedFile {
	states := []map[string]tracedFile{{}}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		var next []map[string]tracedFile
		for _, state := range states {
			for _, content := range contentKept(calls, names[name]) {
				with := maps.Clone(state)
				with[name] = content
				next = append(next, with)
			}
		}
		states = next
	}
	return states
}

func contentKept(calls []call, id string) (all []tracedFile) {
	now := len(calls) - 1
	from := -1
	if _, ok := find(calls[0], id); ok {
		from = 0
	}
	for i, c := range calls[:now] {
		if c.ID == id {
			from = i
		}
	}
	add := func(f tracedFile) {
		if !slices.ContainsFunc(all, func(have tracedFile) bool { return bytes.Equal(have.Data, f.Data) }) {
			all = append(all, f)
		}
	}
	var newest tracedFile
	for _, c := range calls[max(0, from) : now+1] {
		if f, ok := find(c, id); ok { // one without a name has its content already when it gets its first
			newest = f
			add(f)
		}
	}
	if from < 0 || len(all) > 1 {
		for _, torn := range [][]byte{nil, newest.Data[:len(newest.Data)/2], make([]byte, len(newest.Data))} {
			add(tracedFile{ID: id, MTime: newest.MTime, Data: torn})
		}
	}
	return all
}

func find(c call, id string) (tracedFile, bool) {
	for _, names := range c.Files {
		for _, f := range names {
			if f.ID == id {
				return f, true
			}
		}
	}
	return tracedFile{}, false
}

// putDisk makes the files of a directory those that were kept.
func putDisk(t *testing.T, dir string, kept map[string]tracedFile) {
	t.Helper()
	all := map[string]saved{}
	for name, f := range kept {
		all[name] = saved{f.Data, time.Unix(0, f.MTime)}
	}
	putFiles(t, dir, all)
}
