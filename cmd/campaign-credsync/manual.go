//go:build manual

// With the build tag manual this program writes what packages have beside the binary, from the commands' own help and the
// configuration's own table: man pages, scripts of completion, and docs/configure.md.
//
//	go run -tags manual ./cmd/campaign-credsync DIRECTORY
//
// The date of the pages is that of SOURCE_DATE_EPOCH.
package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"campaign-credsync/internal/config"
)

const exampleFile = "packaging/systemd/config.example.yaml"

func main() {
	if err := writeManual(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitFailed)
	}
}

// writeManual writes man1/, man5/, completions/ and configure.md below dir.
func writeManual(dir string) error {
	epoch, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	date := time.Unix(epoch, 0).UTC().Format(time.DateOnly)

	files := map[string][]byte{}
	root := newRootCommand(&invocation{})
	for _, c := range append([]*cobra.Command{root}, root.Commands()...) {
		if !c.Hidden {
			files["man1/"+pageName(c)+".1"] = commandPage(root, c, date)
		}
	}
	example, err := os.ReadFile(exampleFile)
	if err != nil {
		return err
	}
	files["man5/config.yaml.5"] = configPage(string(example), date)
	files["configure.md"] = configMarkdown()

	name := root.Name()
	for shell, file := range map[string]string{"bash": name, "zsh": "_" + name, "fish": name + ".fish"} {
		var script, problems bytes.Buffer
		if run(context.Background(), []string{"completion", shell}, &script, &problems, os.LookupEnv) != exitOK {
			return fmt.Errorf("completion for %s: %s", shell, &problems)
		}
		files["completions/"+shell+"/"+file] = script.Bytes()
	}
	for file, content := range files {
		file = filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// page is a man page under construction, in roff with the macros of man(7).
type page struct{ bytes.Buffer }

func newPage(name, section, date, short string) *page {
	p := &page{}
	fmt.Fprintf(p, ".TH %s %s %s campaign-credsync\n.SH NAME\n%s \\- %s\n", strings.ToUpper(roff(name)), section, date, roff(name), roff(short))
	return p
}

// roff escapes a line of text.
func roff(line string) string {
	line = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(line)
	if strings.HasPrefix(line, ".") {
		line = `\&` + line
	}
	return line
}

// prose writes paragraphs. An indented line is kept as it is.
func (p *page) prose(text string) {
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if strings.HasPrefix(paragraph, " ") {
			p.verbatim(paragraph)
			continue
		}
		p.WriteString(".PP\n")
		for line := range strings.SplitSeq(paragraph, "\n") {
			p.WriteString(roff(line) + "\n")
		}
	}
}

func (p *page) verbatim(text string) {
	p.WriteString(".PP\n.nf\n")
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		p.WriteString(roff(line) + "\n")
	}
	p.WriteString(".fi\n")
}

// item is a term and what it means.
func (p *page) item(term, text string) { fmt.Fprintf(p, ".TP\n.B %s\n%s\n", roff(term), roff(text)) }

// commandPage is the page of one command. What help says in a paragraph of its own about exit statuses has a section of its own.
func commandPage(root, c *cobra.Command, date string) []byte {
	p := newPage(pageName(c), "1", date, c.Short)
	fmt.Fprintf(p, ".SH SYNOPSIS\n.B %s\n", roff(strings.Replace(c.UseLine(), root.Name()+" "+c.Name(), root.Name()+" [--config FILE] "+c.Name(), 1)))
	long := c.Long
	if long == "" {
		long = c.Short + "."
	}
	description, statuses, _ := strings.Cut(long, "\n\nExit status: ")
	p.WriteString(".SH DESCRIPTION\n")
	p.prose(description)
	if c == root {
		p.WriteString(".SH COMMANDS\n")
		for _, inner := range c.Commands() {
			if !inner.Hidden {
				p.item(inner.Name(), inner.Short+".")
			}
		}
	}
	p.WriteString(".SH OPTIONS\n")
	option := func(f *pflag.Flag) {
		value, usage := pflag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0s" {
			usage += " (default " + f.DefValue + ")"
		}
		p.item(strings.TrimSpace("--"+f.Name+" "+value), usage)
	}
	c.InheritedFlags() // merges them
	c.LocalFlags().VisitAll(option)
	if c != root {
		c.InheritedFlags().VisitAll(option)
	}
	if statuses != "" {
		p.WriteString(".SH EXIT STATUS\n")
		p.prose(statuses)
	}
	p.WriteString(".SH FILES\n")
	p.item(config.DefaultFile, "The configuration.")
	p.WriteString(".SH SEE ALSO\n")
	if c != root {
		fmt.Fprintf(p, ".BR %s (1),\n", roff(root.Name()))
	}
	p.WriteString(".BR config.yaml (5)\n")
	return p.Bytes()
}

// configPage is the page of the configuration: its keys from the table that the program itself reads by, and the example.
func configPage(example, date string) []byte {
	p := newPage("config.yaml", "5", date, "configuration of campaign-credsync")
	p.WriteString(".SH SYNOPSIS\n")
	p.WriteString(".I " + roff(config.DefaultFile) + "\n.SH DESCRIPTION\n")
	p.prose(`YAML. An unknown key or a bad value stops the start. Check the file with "campaign-credsync validate"; "validate --effective"
prints it with every default filled in. A default that another key decides is told with the key.`)
	p.WriteString(".SH KEYS\n")
	for _, k := range keysOf("", reflect.TypeFor[config.Config](), "") {
		var text []string
		for _, part := range []string{k.text, ifAny("Allowed: ", k.allowed), ifAny("Default: ", k.fallback)} {
			if part != "" {
				text = append(text, part)
			}
		}
		p.item(k.name, strings.Join(text, " "))
	}
	p.WriteString(".SH EXAMPLE\n")
	p.verbatim(example)
	p.WriteString(".SH SEE ALSO\n.BR campaign\\-credsync (1),\n.BR campaign\\-credsync\\-validate (1)\n")
	return p.Bytes()
}

func ifAny(label, value string) string {
	if value == "" {
		return ""
	}
	return label + value + "."
}

// key is a key of the configuration, as documents tell it.
type key struct{ name, allowed, fallback, text string }

// keysOf are the keys of a group, from the tags of config.Config. A key without a text of its own has that of its group.
func keysOf(prefix string, group reflect.Type, help string) (keys []key) {
	for field := range group.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			continue
		}
		name = prefix + name
		said := cmp.Or(field.Tag.Get("help"), help)
		inner := field.Type
		if inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && field.Tag.Get("method") == "" { // a secret is a struct, and no group
			keys = append(keys, keysOf(name+".", inner, said)...)
			continue
		}
		k := key{name: name, fallback: field.Tag.Get("default"), allowed: strings.ReplaceAll(field.Tag.Get("oneof"), " ", ", ")}
		var text []string
		if said != "" {
			text = append(text, said+".")
		}
		for _, of := range []string{"method", "source"} {
			// Those of the default method and source are not printed.
			chooses, _ := group.FieldByNameFunc(func(name string) bool { return strings.EqualFold(name, of) })
			if which := field.Tag.Get(of); which != "" && which != chooses.Tag.Get("default") && !strings.Contains(said, "For "+of) {
				text = append(text, "For "+of+" "+strings.ReplaceAll(which, " ", ", ")+".")
			}
		}
		k.text = strings.Join(text, " ")
		keys = append(keys, k)
	}
	return keys
}
