package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"time"
)

// standinDir holds what belongs to the stand-in. It is outside conf, so that
// nobody who watches the configuration sees it change.
func standinDir(home string) string { return filepath.Join(home, "var", "standin") }

// runRecord is one line of runs.jsonl.
type runRecord struct {
	Time  time.Time `json:"time"`
	PID   int       `json:"pid"`
	Event string    `json:"event"` // start, waiting, child, end; printed, by a module

	Subcommand string   `json:"subcommand"`
	Kind       string   `json:"kind,omitempty"` // set, reload, restart, help
	Instance   string   `json:"instance,omitempty"`
	Option     string   `json:"option,omitempty"`
	Fields     int      `json:"fields,omitempty"`
	Modules    []string `json:"modules,omitempty"`
	EnvOK      bool     `json:"env_ok"`
	// The first 16 hex digits of SHA-256: enough to tell two values apart.
	SecretSHA256     string `json:"secret_sha256,omitempty"`
	PrivateKeySHA256 string `json:"private_key_sha256,omitempty"`

	At       string   `json:"at,omitempty"`        // waiting: the switch that made it wait
	ChildPID int      `json:"child_pid,omitempty"` // child
	Faults   []string `json:"faults,omitempty"`    // the switches that this run suffers from

	// Of the end alone. Started and Ended tell which runs overlapped.
	ExitCode   *int       `json:"exit_code,omitempty"`
	Started    *time.Time `json:"started,omitempty"`
	Ended      *time.Time `json:"ended,omitempty"`
	DurationUS int64      `json:"duration_us,omitempty"`
	Misuse     string     `json:"misuse,omitempty"` // a mistake in faults.json
}

// runLog appends what happens in this run to runs.jsonl, which many runs share.
type runLog struct {
	path             string
	started          time.Time
	common           runRecord
	environmentReady bool
	faults           []string
	misuse           string
}

func newRunLog(home string, started time.Time, call invocation, environmentReady bool) *runLog {
	return &runLog{
		path:             filepath.Join(standinDir(home), "runs.jsonl"),
		started:          started,
		environmentReady: environmentReady,
		common: runRecord{
			PID:              os.Getpid(),
			Subcommand:       call.subcommand,
			Kind:             call.kind,
			Instance:         call.instance,
			Option:           call.option,
			Fields:           len(call.fields),
			Modules:          call.modules,
			EnvOK:            environmentReady,
			SecretSHA256:     shortDigest(call.field(fieldSecret)),
			PrivateKeySHA256: shortDigest(call.field(fieldPrivateKey)),
		},
	}
}

func (l *runLog) start() error {
	if err := os.MkdirAll(filepath.Dir(l.path), 0o755); err != nil {
		return err
	}
	return l.append("start", func(*runRecord) {})
}

func (l *runLog) waiting(at string) error {
	return l.append("waiting", func(r *runRecord) { r.At = at })
}

func (l *runLog) child(pid int) error {
	return l.append("child", func(r *runRecord) { r.ChildPID = pid })
}

func (l *runLog) end(code int) error {
	ended := time.Now()
	return l.append("end", func(r *runRecord) {
		r.ExitCode = &code
		r.Started, r.Ended = &l.started, &ended
		r.DurationUS = ended.Sub(l.started).Microseconds()
		r.Misuse = l.misuse
	})
}

// append writes one line with one write, so that lines of runs that overlap
// stay whole.
func (l *runLog) append(event string, fill func(*runRecord)) error {
	r := l.common
	r.Time, r.Event, r.Faults = time.Now(), event, l.faults
	fill(&r)
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := file.Write(append(line, '\n')); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}

func shortDigest(value string) string {
	if value == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(value))
	return hex.EncodeToString(sum[:8])
}
