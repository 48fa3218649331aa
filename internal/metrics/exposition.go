package metrics

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// exposition is the answer to a scrape: the text format of Prometheus, version 0.0.4, or OpenMetrics 1.0.0. What the two share is used where
// they allow it; they differ in the names of counters, and at the end.
type exposition struct {
	text   []byte
	isOpen bool

	// of the family whose samples are added
	kind       kind
	name, help string // the name without the namespace; the help has nothing that must be escaped
	begun      bool   // it has a sample
}

type kind string

const (
	gauge     kind = "gauge"
	counter   kind = "counter" // its name ends in _total
	histogram kind = "histogram"
)

const namespace = "campaign_credsync_"

// begin has a family follow. Without samples it does not show.
func (e *exposition) begin(k kind, name, help string) {
	e.kind, e.name, e.help, e.begun = k, name, help, false
}

// add adds a sample with these labels, made by [labels].
func (e *exposition) add(value float64, labels ...string) { e.sample("", value, labels...) }

// addTime adds a time, and nothing for one that never was.
func (e *exposition) addTime(at time.Time, labels ...string) {
	if !at.IsZero() {
		e.add(float64(at.UnixMilli())/1000, labels...)
	}
}

// addHistogram adds the samples of a histogram. counts has those of each bound, and of what is above all. No bound is an integer, which
// OpenMetrics would write in another way.
func (e *exposition) addHistogram(bounds []float64, counts []uint64, sum float64) {
	var total uint64
	for i, n := range counts {
		total += n
		bound := math.Inf(1)
		if i < len(bounds) {
			bound = bounds[i]
		}
		e.sample("_bucket", float64(total), labels("le", strconv.FormatFloat(bound, 'g', -1, 64)))
	}
	e.sample("_sum", sum)
	e.sample("_count", float64(total))
}

func (e *exposition) sample(suffix string, value float64, labels ...string) {
	if !e.begun {
		e.begun = true
		e.head()
	}
	e.text = append(append(append(e.text, namespace...), e.name...), suffix...)
	for i, l := range labels {
		separator := byte(',')
		if i == 0 {
			separator = '{'
		}
		e.text = append(append(e.text, separator), l...)
	}
	if len(labels) > 0 {
		e.text = append(e.text, '}')
	}
	e.text = append(strconv.AppendFloat(append(e.text, ' '), value, 'g', -1, 64), '\n')
}

func (e *exposition) head() {
	name := namespace + e.name
	if e.isOpen && e.kind == counter {
		name = strings.TrimSuffix(name, "_total")
	}
	for _, part := range []string{"# HELP ", name, " ", e.help, "\n# TYPE ", name, " ", string(e.kind), "\n"} {
		e.text = append(e.text, part...)
	}
}

// end ends the answer and returns it.
func (e *exposition) end() []byte {
	if e.isOpen {
		e.text = append(e.text, "# EOF\n"...)
	}
	return e.text
}

var escapeLabel = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// labels makes labels of names and values, in turn. A value may hold anything.
func labels(namesAndValues ...string) string {
	var text strings.Builder
	for pair := range slices.Chunk(namesAndValues, 2) {
		if text.Len() > 0 {
			text.WriteByte(',')
		}
		text.WriteString(pair[0] + `="` + escapeLabel.Replace(strings.ToValidUTF8(pair[1], "\uFFFD")) + `"`)
	}
	return text.String()
}
