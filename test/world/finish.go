package world

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"index/suffixarray"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"campaign-credsync/test/container"
)

// finish ends the world and checks what must hold after every test: the daemons ended as asked and saw no race, every
// file is whole with all foreign bytes, nothing is left beside it, no secret shows anywhere, and no two runs that set a
// credential of one instance overlapped.
func (w *World) finish() {
	w.Ctx = context.Background() // the test's own has ended
	last, _ := w.Asker().Status(w.Ctx)
	if w.Running != nil {
		w.Stop()
	}
	w.EndLeftRuns()
	w.checkFiles()
	w.checkStateDir()
	w.checkSecrets(fmt.Sprintf("%+v", last))
	w.checkRuns()
	for _, word := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if strings.Contains(w.Log(), word) {
			w.T.Errorf("the daemon says %s\n%s", word, w.Log())
			break
		}
	}
	for _, f := range w.Last {
		f()
	}
	if err := w.Close(); err != nil {
		w.T.Error(err)
	}
}

// Check asks what can be asked between two steps of a test, while the daemon is in sync: whether every file is whole with all
// foreign bytes, nothing is left beside it, and no two runs overlapped.
func (w *World) Check() {
	w.T.Helper()
	w.checkFiles()
	w.checkRuns()
}

// EndLeftRuns kills runs of the stand-in that a test left hanging. Each is known by its executable, as its number may
// have been given to another process.
func (w *World) EndLeftRuns() {
	runs, err := w.Runs()
	if err != nil {
		w.T.Error(err)
	}
	own := filepath.Join(w.Home, "bin") + "/"
	for _, r := range runs {
		for _, pid := range []int{r.PID, r.ChildPID} {
			exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
			if err == nil && strings.HasPrefix(exe, own) {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
}

func (w *World) checkFiles() {
	want := append([]string{"config-default.xml"}, w.Conf...)
	for name, foreignBytes := range w.Foreign {
		file := filepath.Base(w.File(name))
		if slices.Contains(w.Conf, file) {
			continue // the test's own business
		}
		want = append(want, file)
		data, err := os.ReadFile(w.File(name))
		if err != nil {
			w.T.Error(err)
			continue
		}
		if err := WellFormed(data); err != nil {
			w.T.Errorf("the file of %s is not whole: %v\n%s", name, err, w.Log())
		}
		if got := ForeignBytes(data); !bytes.Equal(got, foreignBytes) {
			w.T.Errorf("foreign bytes of %s changed: %s\n%s", name, FirstDifference(foreignBytes, got), w.Log())
		}
	}
	strays := func() (names []string) {
		entries, err := os.ReadDir(filepath.Join(w.Home, "conf"))
		w.Must(err)
		for _, e := range entries {
			if !slices.Contains(want, e.Name()) {
				names = append(names, e.Name())
			}
		}
		return names
	}
	// A daemon that runs may have replaced a file just now, and looks after what it displaced for 0.1 s.
	for began := time.Now(); w.Running != nil && len(strays()) > 0 && time.Since(began) < Patience; {
		time.Sleep(time.Millisecond)
	}
	for _, name := range strays() {
		w.T.Errorf("a stray file in conf/: %s\n%s", name, w.Log())
	}
}

// checkStateDir demands that nothing unfinished is left after an orderly end.
func (w *World) checkStateDir() {
	entries, err := os.ReadDir(w.StateDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.T.Error(err)
	}
	known := regexp.MustCompile(`^(lock|digest\.key|secret-id\.key|refused-secret-id\.json|history\.jsonl(\.1)?|[a-zA-Z0-9_-]+\.json|[a-zA-Z0-9_-]+\.nlserver\.lock|[a-zA-Z0-9_@-]+\.restart)$`)
	for _, e := range entries {
		if !known.MatchString(e.Name()) {
			w.T.Errorf("a stray file in the state directory: %s\n%s", e.Name(), w.Log())
		}
		if info, err := e.Info(); err == nil && info.Mode().Perm()&0o077 != 0 {
			w.T.Errorf("%s in the state directory has mode %v", e.Name(), info.Mode())
		}
	}
}

// vaultToken is what Vault's tokens look like.
var vaultToken = regexp.MustCompile(`hv[sbr]\.[A-Za-z0-9_-]{20,}`)

// checkSecrets looks everywhere: in what daemons and commands printed, the last status, and every file of the container
// but the one that holds the secret-id.
func (w *World) checkSecrets(status string) {
	places := map[string][]byte{"the log": []byte(w.Log()), "the output of a command": w.Printed.Bytes(), "the status": []byte(status)}
	err := filepath.WalkDir(w.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || path == w.SecretID || strings.HasPrefix(path, filepath.Join(w.Home, "bin")) {
			return err
		}
		places[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		w.T.Error(err)
	}
	var forms []string
	for _, secret := range w.Secrets {
		forms = append(forms, FormsOf(secret)...)
	}
	if w.Activation != nil {
		places["the output of the activation service"] = []byte(w.Activation.Printed())
	}
	for place, text := range places {
		find := func(form []byte) int { return bytes.Index(text, form) }
		if len(forms) > 1000 { // an index takes as long as a thousand searches to make
			index := suffixarray.New(text)
			find = func(form []byte) int { return append(index.Lookup(form, 1), -1)[0] }
		}
		for _, form := range forms {
			if i := find([]byte(form)); i >= 0 {
				w.T.Errorf("a secret shows in %s: …%s", place, text[max(0, i-200):i])
			}
		}
		if vaultToken.Match(text) {
			w.T.Errorf("a token of Vault shows in %s", place)
		}
	}
}

// FormsOf are the forms in which a secret may show, and its halves, as lines break it. Of a very long one its beginning is
// enough.
func FormsOf(secret string) (forms []string) {
	const long = 4 << 10
	secret = secret[:min(len(secret), long)]
	half := len(secret) / 2
	for _, text := range []string{secret, secret[:half], secret[half:]} {
		if len(text) < 12 && text != secret {
			continue // found everywhere
		}
		inHex := hex.EncodeToString([]byte(text))
		upper := strings.ToUpper(inHex)
		forms = append(forms, text, url.QueryEscape(text), inHex, upper, everyTwo.ReplaceAllString(upper, "%$0"),
			strings.Join(strings.Split(text, ""), " "))
		for before := range 3 { // its place in the three bytes that make four digits; those at its ends are shared
			all := base64.StdEncoding.EncodeToString(append(make([]byte, before), text...))
			if own := all[4 : 4+max(0, len(text)-3)/3*4]; len(own) >= 8 {
				forms = append(forms, own)
			}
		}
	}
	return forms
}

var everyTwo = regexp.MustCompile("..")

// checkRuns demands that runs which set a credential of one instance came one after the other. Of one that was killed
// nobody knows when it ended.
func (w *World) checkRuns() {
	runs, err := w.Runs()
	if err != nil {
		w.T.Error(err)
	}
	type span struct{ from, to time.Time }
	open := map[int]container.Run{}
	spans := map[string][]span{}
	for _, r := range runs {
		if r.Kind != "set" {
			continue
		}
		switch r.Event {
		case "start":
			open[r.PID] = r
		case "end":
			spans[r.Instance] = append(spans[r.Instance], span{open[r.PID].Time, r.Time})
		}
	}
	for instance, all := range spans {
		slices.SortFunc(all, func(a, b span) int { return a.from.Compare(b.from) })
		for i := range len(all) - 1 {
			if all[i].to.After(all[i+1].from) {
				w.T.Errorf("two runs that set the credential of %s overlapped: %v", instance, all[i:i+2])
			}
		}
	}
}

func WellFormed(document []byte) error {
	decoder := container.Decoder(document)
	for roots := 0; ; {
		token, err := decoder.Token()
		if err == io.EOF && roots > 0 {
			return nil
		}
		if err == io.EOF {
			return errors.New("there is no element")
		}
		if err != nil {
			return err
		}
		if _, ok := token.(xml.StartElement); ok {
			roots++
		}
	}
}

// FirstDifference shows where two documents part.
func FirstDifference(was, is []byte) string {
	i := 0
	for i < min(len(was), len(is)) && was[i] == is[i] {
		i++
	}
	return fmt.Sprintf("at byte %d, %q became %q", i, was[max(0, i-40):min(len(was), i+80)], is[max(0, i-40):min(len(is), i+80)])
}

var (
	notMarkup = regexp.MustCompile(`(?s)<!--.*?-->|<!\[CDATA\[.*?\]\]>`)
	ours      = regexp.MustCompile(`^authIMSTA(?:ClientId|ClientSecret|Id|PrivateKey)=(?:"[^"]*"|'[^']*')`)
	emptyIMS  = regexp.MustCompile(`^<ims\s*/>`)
)

// ForeignBytes returns a document without what is ours: the managed attributes, and an <ims> that has no other. What looks
// like them in comments and character data is not ours.
func ForeignBytes(document []byte) []byte {
	var rest []byte
	strip := func(markup []byte) {
		rest = append(rest, without(without(markup, "authIMSTA", 1, ours), "<ims", 0, emptyIMS)...)
	}
	done := 0
	for _, at := range notMarkup.FindAllIndex(document, -1) {
		strip(document[done:at[0]])
		rest = append(rest, document[at[0]:at[1]]...)
		done = at[1]
	}
	strip(document[done:])
	return rest
}

// without leaves out what begins with a word and matches, with the white space before it, of which there must be some. A regular
// expression alone would be slow: documents are long, and this is asked with each step.
func without(document []byte, word string, space int, what *regexp.Regexp) (rest []byte) {
	for {
		at := bytes.Index(document, []byte(word))
		if at < 0 {
			return append(rest, document...)
		}
		before := bytes.TrimRight(document[:at], " \t\r\n\f")
		match := what.Find(document[at:])
		if match == nil || at-len(before) < space {
			before, match = document[:at], document[at:at+len(word)]
			rest = append(append(rest, before...), match...)
		} else {
			rest = append(rest, before...)
		}
		document = document[at+len(match):]
	}
}
