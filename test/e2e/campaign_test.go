package e2e_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// wrapper is a bin/nlserver that sets up more and runs the real one, as nlenv does. It prints in the encoding of a French Campaign, keeps
// its log where customer.sh has moved var/ to, and fails while there is a file named "fail" there.
const wrapper = `#!/bin/sh
printf '12:00:00 >   D\351marrage\n' | tee -a "$XTK_VAR_DIR/nlenv.log" || exit
[ -n "$XTK_VAR_DIR" ] || exit
[ ! -e "$XTK_VAR_DIR/fail" ] || { printf '12:00:00 >   Connexion refus\351e par le serveur de base de donn\351es (iRc=-53)\n' >&2; exit 1; }
exec "${0%/*}/nlserver.real" "$@"
`

// A Campaign as many are: nlserver is a wrapper, customer.sh moves var/ (XTK_VAR_DIR), and everything is in ISO-8859-15: the instance's
// file, nlserver's words, the locale.
func TestCampaignWithWrapperMovedVarAndOldEncoding(t *testing.T) {
	t.Setenv("LANG", "fr_FR.ISO-8859-15")
	w := world.New(t, container.Options{})
	nlserver, moved := w.Path("nl6", "bin", "nlserver"), w.Path("var")
	w.Must(os.Mkdir(moved, 0o755))
	w.Must(os.Rename(nlserver, nlserver+".real"))
	w.Must(os.WriteFile(nlserver, []byte(wrapper), 0o755))
	w.Must(os.WriteFile(w.Path("nl6", "customer.sh"), []byte("export XTK_VAR_DIR="+moved+"\n"), 0o644))
	w.Edits("prod", func(d []byte) []byte {
		d = world.Replaced(t, d, "<?xml version='1.0'?>", "<?xml version='1.0' encoding='ISO-8859-15'?>")
		return world.Replaced(t, d, "</serverconf>", "<!-- \xe9t\xe9, 5 \xa4 -->\n</serverconf>")
	})
	_, first := w.NewSecret("prod")
	w.StartDaemon()
	w.InSync(1)
	w.Holds("prod", first)
	w.Blank("prod")
	w.OnDisk("prod", first)

	w.Must(os.WriteFile(w.Path("var", "fail"), nil, 0o644))
	_, second := w.NewSecret("prod")
	said := w.Is("prod", "pending/apply_failed", "Connexion refusée par le serveur de base de données (iRc=-53)")
	if !utf8.ValidString(said) || !utf8.ValidString(w.Log()) {
		t.Errorf("not UTF-8: %q\n%q", said, w.Log())
	}
	w.Must(os.Remove(w.Path("var", "fail")))
	w.Pass()
	w.InSync(2)
	w.Holds("prod", second)

	log, err := os.ReadFile(w.Path("var", "nlenv.log"))
	w.Must(err)
	if bytes.Count(log, []byte("D\xe9marrage\n")) < 4 { // the list of options, two applies, a reload
		t.Errorf("nlserver's log: %q", log)
	}
	if !strings.Contains(w.Log(), "Démarrage") {
		t.Errorf("what nlserver printed is not in the log\n%s", w.Log())
	}
}
