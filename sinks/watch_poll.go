package sinks

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// signature is what stat tells about a file. Two equal ones may hide a change within a tick of the file system's clock
// (milliseconds); the periodic full check is for that.
type signature struct {
	there             bool
	device, inode     uint64
	size              int64
	modified, changed unix.Timespec
}

func signatureOf(path string) signature {
	info, err := os.Stat(path)
	if err != nil {
		return signature{}
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return signature{}
	}
	return signature{
		there: true, device: uint64(stat.Dev), inode: stat.Ino, size: stat.Size,
		modified: unix.Timespec(stat.Mtim), changed: unix.Timespec(stat.Ctim),
	}
}

// poll looks at the files without events.
func (w *fileWatch) poll() {
	polled := map[*watchedFile]bool{}
	for _, dir := range w.dirs {
		if !dir.polled {
			continue
		}
		for _, files := range dir.names {
			for _, file := range files {
				polled[file] = true
			}
		}
	}
	for file := range polled {
		if now := signatureOf(file.path); now != file.seen {
			file.seen = now
			file.call(true)
		}
	}
}

// lookAtAll is for what no event tells: a file that is mounted over its name, a change by way of another mount. Where
// there are events, it is late and calls once more than needed after each.
func (w *fileWatch) lookAtAll() {
	for _, file := range w.files {
		if now := signatureOf(file.path); now != file.seen {
			file.seen = now
			file.call(false) // most often an event has told of it
		}
	}
}

// pollsNetwork reports whether a directory is on a network file system, where events tell at best what this machine
// does. It is watched all the same, for these are the fastest.
func (w *fileWatch) pollsNetwork(dir *watchedDir) bool {
	name := w.network(dir.path)
	if name == "" {
		return false
	}
	if !dir.warned {
		dir.warned = true
		w.logger.Warn("no file events about other machines' changes, files are looked at every so often instead",
			"directory", dir.path, "interval", w.pace.poll, "reason", "it is on a network file system ("+name+")",
			"remedy", "keep Campaign's conf directory on a local file system")
	}
	return true
}

// warn says once that a directory is polled.
func (w *fileWatch) warn(dir *watchedDir, err error) {
	if dir.warned {
		return
	}
	dir.warned = true
	w.logger.Warn("no file events, files are looked at every so often instead",
		"directory", dir.path, "interval", w.pace.poll, "reason", err, "remedy", remedyFor(err))
}

// networkFileSystems are those whose files change without an event here; statfs(2) has the numbers.
var networkFileSystems = map[int64]string{
	unix.NFS_SUPER_MAGIC:   "NFS",
	unix.SMB_SUPER_MAGIC:   "SMB",
	unix.SMB2_SUPER_MAGIC:  "SMB",
	unix.CIFS_SUPER_MAGIC:  "SMB",
	unix.FUSE_SUPER_MAGIC:  "FUSE",
	unix.V9FS_MAGIC:        "9P",
	unix.CEPH_SUPER_MAGIC:  "Ceph",
	unix.AFS_SUPER_MAGIC:   "AFS",
	unix.AFS_FS_MAGIC:      "AFS",
	unix.CODA_SUPER_MAGIC:  "Coda",
	unix.NCP_SUPER_MAGIC:   "NCP",
	unix.OCFS2_SUPER_MAGIC: "OCFS2",
	0x01161970:             "GFS2",
	0x0bd00bd0:             "Lustre",
	0x47504653:             "GPFS",
	0xbacbacbc:             "vmhgfs",
	0x786f4256:             "vboxsf",
}

// networkFileSystem names the network file system that dir is on; "" for a local one, and for what cannot be asked.
func networkFileSystem(dir string) string {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return ""
	}
	// Some kernels have the number as a signed one of 32 bits.
	return networkFileSystems[int64(uint32(stat.Type))]
}
