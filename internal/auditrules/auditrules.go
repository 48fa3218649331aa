// Package auditrules judges rules of auditd: do they record the arguments with which nlserver is started?
//
// Whatever it is not sure of records them, and leaves nothing out.
package auditrules

import (
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"campaign-credsync/internal/lazyregexp"
)

// Start is how nlserver is started with a secret, as the kernel compares it with rules.
type Start struct {
	program string // the file itself, not a symbolic link to it
	script  bool   // what then runs is another program
	uid     int    // -1: not known
}

// StartOf is the start of a program, which may be a symbolic link, by a user; -1: not known.
func StartOf(program string, uid int) Start {
	if real, err := filepath.EvalSymlinks(program); err == nil {
		program = real
	}
	return Start{program: program, script: isScript(program), uid: uid}
}

// Judge returns the rule by which nlserver's arguments are recorded, or the one by which they are not; neither: no rule is about it.
// listed says that the rules are what auditctl -l printed.
func (s Start) Judge(rules string, listed bool) (records, excludes string) {
	for line := range strings.Lines(rules) {
		r, line := parseRule(line), strings.TrimSpace(line)
		fits := s.fits(r, listed)
		switch {
		case r.is("task", "never") && len(r.filters)+len(r.compares) == 0, r.list == "exclude" && fits == surely:
			return "", line // these count wherever they stand
		case records+excludes != "" && !r.first:
		case r.is("exit", "always") && fits >= perhaps:
			records, excludes = line, ""
		case r.is("exit", "never") && fits == surely:
			records, excludes = "", line
		}
	}
	return records, excludes
}

// Filter is what a rule for this start only has behind -F.
func (s Start) Filter() string {
	if s.script {
		return "uid=" + strconv.Itoa(s.uid)
	}
	return "exe=" + s.program
}

// rule is a line of the rules of auditd.
type rule struct {
	list, action      string
	first             bool     // it is put before those that are there
	syscalls          []string // none: all
	filters, compares []string // of -F and -C
}

func (r rule) is(list, action string) bool { return r.list == list && r.action == action }

func parseRule(line string) (r rule) {
	words := strings.Fields(line)
	for len(words) > 0 && len(words[0]) >= 2 && words[0][0] == '-' {
		option, value := words[0][:2], words[0][2:]
		words = words[1:]
		if value == "" && len(words) > 0 {
			value, words = words[0], words[1:]
		}
		switch option {
		case "-a", "-A":
			r.action, r.list, _ = strings.Cut(value, ",")
			if r.list == "always" || r.list == "never" {
				r.action, r.list = r.list, r.action
			}
			r.first = option == "-A"
		case "-S":
			r.syscalls = append(r.syscalls, strings.Split(value, ",")...)
		case "-F":
			r.filters = append(r.filters, value)
		case "-C":
			r.compares = append(r.compares, value)
		case "-w":
			r.list, r.action = "exit", "always"
			r.filters = append(r.filters, "dir="+value)
		case "-p":
			r.filters = append(r.filters, "perm="+value)
		}
	}
	return r
}

// match says whether something of a rule fits the start of nlserver. That of several is the least of them.
type match int

const (
	not match = iota
	perhaps
	surely
)

func (s Start) fits(r rule, listed bool) match {
	all := not
	// By name as auditctl prints them, by number as they may be written for amd64.
	if len(r.syscalls) == 0 || slices.ContainsFunc(r.syscalls, func(name string) bool { return name == "execve" || name == "all" || name == "59" }) {
		all = surely
	}
	for _, f := range r.filters {
		all = min(all, s.passes(f, listed))
	}
	for _, c := range r.compares {
		all = min(all, comparesEqual(c))
	}
	return all
}

var filterForm = lazyregexp.New(`^(\w+)(!=|<=|>=|=|<|>)(.*)$`)

// passes reports whether a filter (-F) lets a successful start of nlserver through.
func (s Start) passes(filter string, listed bool) match {
	found := filterForm().FindStringSubmatch(filter)
	if found == nil {
		return perhaps
	}
	field, operator, value := found[1], found[2], found[3]
	switch field {
	case "key":
		return surely
	case "arch":
		return equal(operator, strings.HasSuffix(value, "64"))
	case "exe":
		same := placeOf(value) == s.program
		if s.script || listed && operator == "=" && !same { // auditctl -l prints != as =
			return perhaps
		}
		return equal(operator, same)
	case "path":
		return equal(operator, placeOf(value) == s.program)
	case "dir":
		inside, err := filepath.Rel(placeOf(value), s.program)
		return equal(operator, err == nil && inside != ".." && !strings.HasPrefix(inside, "../"))
	case "perm":
		return equal(operator, strings.Contains(value, "x"))
	case "success":
		return equal(operator, value != "0" && value != "no")
	case "exit":
		if _, err := strconv.Atoi(value); err != nil && strings.HasPrefix(value, "-") {
			value = "-1" // the name of some error
		}
		return compared(0, operator, value)
	case "uid", "euid", "suid", "fsuid":
		if u, err := user.Lookup(value); err == nil {
			value = u.Uid
		}
		if s.uid < 0 {
			return perhaps
		}
		return compared(s.uid, operator, value)
	case "msgtype": // without that of the system call there is no other record
		return equal(operator, slices.Contains([]string{"EXECVE", "1309", "SYSCALL", "1300"}, value))
	}
	return perhaps
}

// placeOf is a path of a rule as the kernel finds it: through symbolic links of directories, but not through one at its end.
func placeOf(path string) string {
	path = filepath.Clean(path)
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}

func equal(operator string, same bool) match {
	switch {
	case operator != "=" && operator != "!=":
		return perhaps
	case same == (operator == "="):
		return surely
	}
	return not
}

func compared(n int, operator, value string) match {
	to, err := strconv.Atoi(value)
	if err != nil {
		return perhaps
	}
	fits := false
	switch operator {
	case "<":
		fits = n < to
	case "<=":
		fits = n <= to
	case ">":
		fits = n > to
	case ">=":
		fits = n >= to
	default:
		return equal(operator, n == to)
	}
	return equal("=", fits)
}

var compareForm = lazyregexp.New(`^(?:e|s|fs)?([ug]id)(!?=)(?:e|s|fs)?([ug]id)$`)

// comparesEqual reports whether a comparison (-C) lets a start of nlserver through: it has the rights of its caller.
func comparesEqual(comparison string) match {
	if found := compareForm().FindStringSubmatch(comparison); found != nil && found[1] == found[3] {
		return equal(found[2], true)
	}
	return perhaps
}

func isScript(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	mark := make([]byte, 2)
	n, _ := file.Read(mark)
	return string(mark[:n]) == "#!"
}
