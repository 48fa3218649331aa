package world

import (
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/skip"
)

// Hangs mounts a file system at a file or directory that answers nothing, as a network mount whose server is gone: whoever asks
// for anything there waits until the returned func, which takes it away, is called.
func (w *World) Hangs(path string) (over func()) {
	w.T.Helper()
	NeedsRoot(w.T)
	info, err := os.Stat(path)
	w.Must(err)
	mode := uint32(unix.S_IFREG)
	if info.IsDir() {
		mode = unix.S_IFDIR
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		skip.Unable(w.T, "needs /dev/fuse: "+err.Error())
	}
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0,allow_other", fd, mode|0o755)
	w.Must(unix.Mount("hangs", path, "fuse", 0, options))
	done := false
	over = func() {
		if !done {
			done = true
			unix.Close(fd) // whoever waits gets an error
			unix.Unmount(path, unix.MNT_DETACH)
		}
	}
	w.T.Cleanup(over)
	return over
}

// Freezes puts a directory on a file system of its own that may be frozen, and returns what freezes it and what thaws it: until then
// the kernel holds whoever writes there, and not even SIGKILL ends it.
func (w *World) Freezes(dir string) (freeze, thaw func()) {
	w.T.Helper()
	NeedsRoot(w.T)
	image, aside := w.Path("disk.img"), w.Path("aside")
	w.Must(os.WriteFile(image, nil, 0o600))
	w.Must(os.Truncate(image, 16<<20))
	w.Run("mkfs.ext4", "-q", "-F", image)
	w.Run("cp", "-a", dir, aside)
	w.Run("mount", "-o", "loop", image, dir)
	w.Run("sh", "-c", `rm -r "$1/lost+found" && cp -a "$2/." "$1/"`, "sh", dir, aside)
	w.Must(os.RemoveAll(aside))
	frozen := false
	thaw = func() {
		if frozen {
			frozen = false
			// Not by w.Run, whose context has ended in a cleanup: whoever writes there would hang for ever.
			w.Must(exec.Command("fsfreeze", "-u", dir).Run())
		}
	}
	w.Last = append(w.Last, func() { w.Run("umount", "-l", dir); os.Remove(image) })
	w.T.Cleanup(thaw) // before finish, and whatever happened
	return func() { frozen = true; w.Run("fsfreeze", "-f", dir) }, thaw
}
