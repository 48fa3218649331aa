// Package pages takes the commands out of the documents, so that tests can run them.
//
// A fenced block of the language sh is what an operator types. All of it is run, in the order of the page, or by the test that RunBy names.
package pages

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Operators are the pages for operators, in the order in which a test may run them: each begins with a host on which the instance is in
// sync, but for the first.
var Operators = []string{
	"install.md", "commands.md", "problems.md", "operate.md", "rotate-by-hand.md", "break-glass.md", "vault.md", "first-real-run.md", "uninstall.md",
	"alerts.md", "configure.md", "faq.md", "hardening.md", "security.md",
}

// Elsewhere are pages for operators with a test of their own.
var Elsewhere = map[string]string{
	"container.md":        "TestBareImage, TestImageOnCampaigns, TestImageBesideCampaign",
	"migrate-from-jwt.md": "TestMigrationFromJWT",
	"rollout.md":          "TestRollout",
}

// Developers are the other pages.
var Developers = []string{"architecture.md", "argv.md", "compatibility.md", "dependencies.md", "faults.md", "testing.md"}

// RunBy are the commands that need more than a container, by page and by how their first line begins: the test of releases runs them.
var RunBy = []struct{ Page, Begins, Test string }{
	{"install.md", "make build", "TestReleaseIsReproducible"},
	{"install.md", "gpg --verify", "TestReleaseIsReproducible"},
}

// Languages are those that a block may have. Only sh is run.
var Languages = []string{"sh", "yaml", "json", "hcl", "ini", "xml", "text", "mermaid"}

// Block is a fenced block of a page.
type Block struct {
	Page, Heading, Language, Text string
	Line                          int
}

func (b Block) String() string { return fmt.Sprintf("docs/%s:%d", b.Page, b.Line) }

// Read returns the blocks of a page in docs, a directory. An indented block has no language.
func Read(docs, page string) (blocks []Block, err error) {
	text, err := os.ReadFile(filepath.Join(docs, page))
	if err != nil {
		return nil, err
	}
	var open *Block
	heading, before, indent := "", "", ""
	for i, line := range strings.Split(string(text), "\n") {
		bare := strings.TrimLeft(line, " ")
		fence, fenced := strings.CutPrefix(bare, "```")
		switch {
		case open != nil && fenced:
			blocks, open = append(blocks, *open), nil
		case open != nil:
			open.Text += strings.TrimPrefix(line, indent) + "\n"
		case fenced:
			indent = line[:len(line)-len(bare)]
			open = &Block{page, heading, fence, "", i + 1}
		case strings.HasPrefix(line, "#"):
			heading = strings.TrimLeft(line, "# ")
		case strings.HasPrefix(line, "    ") && before == "":
			blocks = append(blocks, Block{page, heading, "", line + "\n", i + 1})
		}
		before = line
	}
	if open != nil {
		return nil, fmt.Errorf("%s: the block has no end", *open)
	}
	return blocks, nil
}

// Commands splits a block of sh into commands of whole lines: a here-document and what continues after \, |, && or a quote stay together.
func (b Block) Commands() (commands []string) {
	var one strings.Builder
	until := ""
	for line := range strings.Lines(b.Text) {
		one.WriteString(line)
		bare := strings.TrimSpace(line)
		if until != "" {
			if bare != until {
				continue
			}
			until = ""
		} else if _, after, is := strings.Cut(bare, "<<'"); is {
			until, _, _ = strings.Cut(after, "'")
			continue
		}
		if strings.HasSuffix(bare, `\`) || strings.HasSuffix(bare, "|") || strings.HasSuffix(bare, "&&") || strings.Count(one.String(), "'")%2 != 0 {
			continue
		}
		if strings.TrimSpace(one.String()) != "" {
			commands = append(commands, one.String())
		}
		one.Reset()
	}
	if rest := one.String(); strings.TrimSpace(rest) != "" {
		commands = append(commands, rest)
	}
	return commands
}

// RunElsewhere reports whether another test runs a command.
func (b Block) RunElsewhere(command string) bool {
	for _, r := range RunBy {
		if r.Page == b.Page && strings.HasPrefix(strings.TrimSpace(command), r.Begins) {
			return true
		}
	}
	return false
}

// CommandsRunBy returns the commands that a test runs in place of that of their page, in the order of RunBy.
func CommandsRunBy(docs, test string) (commands []string, err error) {
	for _, r := range RunBy {
		if r.Test != test {
			continue
		}
		blocks, err := Read(docs, r.Page)
		if err != nil {
			return nil, err
		}
		for _, b := range blocks {
			for _, command := range b.Commands() {
				if b.Language == "sh" && strings.HasPrefix(strings.TrimSpace(command), r.Begins) {
					commands = append(commands, command)
				}
			}
		}
	}
	return commands, nil
}
