package faults_test

import (
	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
	"os"
	"path/filepath"
	"testing"
)

// conf/ is put aside and another one takes its place, as an upgrade does.
func TestDirectoryIsReplaced(t *testing.T) {
	t.Parallel()
	w, secrets := world.Started(t, container.Options{})
	conf := filepath.Join(w.Home, "conf")
	w.Run("cp", "-a", conf, conf+".new")
	w.Must(os.Rename(conf, conf+".old"))
	w.Must(os.Rename(conf+".new", conf))
	w.Blank("prod")
	w.OnDisk("prod", secrets["prod"])
	w.Blank("prod")
	w.OnDisk("prod", secrets["prod"])
	w.Is("prod", "in_sync")
}
