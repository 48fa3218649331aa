package compatibility_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/control"
	"campaign-credsync/sync/event"
	"campaign-credsync/sync/state"
)

// No field of a record was renamed or changed its kind, and its value is written back.
func TestFieldsOfRecords(t *testing.T) {
	for _, release := range releases(t) {
		records, err := filepath.Glob(filepath.Join(release, "state", "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		store, err := state.Open(dir, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		for _, path := range append(records, filepath.Join(release, "every-field.json")) {
			name, _ := strings.CutSuffix(filepath.Base(path), ".json")
			if strings.HasSuffix(name, "-secret-id") {
				continue // not a record
			}
			text := read(t, path)
			known(t, path, reflect.TypeFor[state.Record](), tree(t, text))
			write(t, text, dir, name+".json")
			record, err := store.Load(name)
			if err == nil {
				err = store.Save(name, record)
			}
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			holds(t, path, tree(t, text), tree(t, read(t, dir, name+".json")))
		}
	}
}

// No field of the status document was renamed or changed its kind, and a value that a daemon answered is printed.
func TestFieldsOfStatus(t *testing.T) {
	for _, release := range releases(t) {
		path := filepath.Join(release, "status.json")
		text := read(t, path)
		known(t, path, reflect.TypeFor[control.Status](), tree(t, text))
		var status control.Status
		if err := json.Unmarshal(text, &status); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		again, err := json.Marshal(status)
		if err != nil {
			t.Fatal(err)
		}
		holds(t, path, tree(t, text), tree(t, again))
	}
}

// No field of an event was renamed or changed its kind.
func TestFieldsOfEvents(t *testing.T) {
	for _, release := range releases(t) {
		path := filepath.Join(release, "history.jsonl")
		for line := range bytes.Lines(read(t, path)) {
			known(t, path, reflect.TypeFor[event.Event](), tree(t, line))
			var e event.Event
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			holds(t, path, tree(t, line), tree(t, e.Line()))
		}
	}
}

// The example of a release, in which every key stands, is a configuration of this one, and each value, also one left out, means what it meant.
func TestConfigurationsOfReleases(t *testing.T) {
	for _, release := range releases(t) {
		path := filepath.Join(release, "config.example.yaml")
		holds(t, path, yamlTree(t, read(t, release, "effective.yaml")), yamlTree(t, effective(t, path)))
	}
}

// effective is what a configuration comes to.
func effective(t *testing.T, path string) []byte {
	t.Helper()
	c, err := config.Load(path, func(name string) (string, bool) { return "/run/credentials", name == "CREDENTIALS_DIRECTORY" })
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	var text bytes.Buffer
	if err := c.Effective(&text); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}

func yamlTree(t *testing.T, text []byte) (root any) {
	t.Helper()
	if err := yaml.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	return root
}

// metricFamilies are the metrics of a text, each with its kind and the labels of its samples.
func metricFamilies(t *testing.T, text []byte) map[string]string {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	parsed, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	families := map[string]string{}
	for name, family := range parsed {
		labels := map[string]bool{}
		for _, m := range family.Metric {
			for _, l := range m.Label {
				labels[l.GetName()] = true
			}
		}
		families[name] = fmt.Sprint(family.GetType(), slices.Sorted(maps.Keys(labels)))
	}
	return families
}

// known demands that each field of a JSON text is one of the type's: one that is not would be kept for a newer release, and not be read.
func known(t *testing.T, at string, of reflect.Type, value any) {
	t.Helper()
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	switch v := value.(type) {
	case []any:
		for i, one := range v {
			known(t, fmt.Sprintf("%s[%d]", at, i), of.Elem(), one)
		}
	case map[string]any:
		if of.Kind() == reflect.Map {
			return
		}
		for name, one := range v {
			i := slices.IndexFunc(reflect.VisibleFields(of), func(f reflect.StructField) bool {
				tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				return tag == name
			})
			if i < 0 {
				t.Errorf("%s: there is no field %s any more", at, name)
				continue
			}
			known(t, at+"."+name, reflect.VisibleFields(of)[i].Type, one)
		}
	}
}

// holds demands that all that is in before is in after, with the same value.
func holds(t *testing.T, at string, before, after any) {
	t.Helper()
	walk(at, before, after, func(at string, before, after any) {
		switch was := before.(type) {
		case map[string]any:
			if after == absent {
				t.Errorf("%s is gone", at)
			}
		case []any:
			if is, _ := after.([]any); len(was) != len(is) {
				t.Errorf("%s: %d, and before %d", at, len(is), len(was))
			}
		default:
			if before != after {
				t.Errorf("%s: %v, and before %v", at, after, before)
			}
		}
	})
}

// absent is what walk visits where a document lacks what another has.
const absent = missing("absent")

type missing string

// walk visits all that is in before, with what is at the same place in after.
func walk(at string, before, after any, visit func(at string, before, after any)) {
	visit(at, before, after)
	switch was := before.(type) {
	case map[string]any:
		is, _ := after.(map[string]any)
		for name, one := range was {
			if other, there := is[name]; there {
				walk(at+"."+name, one, other, visit)
			} else {
				visit(at+"."+name, one, absent)
			}
		}
	case []any:
		is, _ := after.([]any)
		for i := range min(len(was), len(is)) {
			walk(fmt.Sprintf("%s[%d]", at, i), was[i], is[i], visit)
		}
	}
}
