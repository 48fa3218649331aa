package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/lazyregexp"
)

// Error is what is wrong with a configuration file, one problem a line, as FILE:LINE:COLUMN: KEY: VALUE PROBLEM. It shows no value that
// may be secret: a secret-id written where its file's name belongs is a likely mistake.
type Error string

// Error returns one line for each problem.
func (e Error) Error() string { return string(e) }

// reader turns the text of a configuration file into a Config. The YAML library's own decoder stops at the first problem, does not keep
// positions, and panics on some tags. So reader walks the library's syntax tree along the struct.
type reader struct {
	file string
	env  func(string) (string, bool)

	at       map[string]*token.Position // key → where it or its value stands
	written  map[string]string          // key → its value, if it is one word and no secret
	refused  map[string]bool            // key → has a problem already
	meant    map[string]bool            // key → another was probably written in its place
	problems []problem
}

type problem struct {
	at     *token.Position
	absent bool // the file does not have the key
	line   string
}

// document parses text and returns the root of its only document, or nil.
func (r *reader) document(text []byte) ast.Node {
	if !utf8.Valid(text) {
		r.refuse("", "is not UTF-8; save the file as UTF-8")
		return nil
	}
	file, err := parseYAML(text)
	if err != nil {
		message := err.Error()
		if syntax, ok := errors.AsType[yaml.Error](err); ok {
			message = syntax.GetMessage() // without the excerpt, which could hold a secret
			if t := syntax.GetToken(); t != nil {
				r.at[""] = t.Position
			}
		}
		if line := indentedByTab(text); line > 0 {
			r.at[""] = &token.Position{Line: line, Column: 1}
			message = "the line begins with a tab; use spaces"
		}
		r.refuse("", "is not YAML: %s", credential.Escape(message))
		return nil
	}
	documents := slices.DeleteFunc(file.Docs, func(d *ast.DocumentNode) bool { return d.Body == nil })
	if len(documents) != 1 || !isGroup(documents[0].Body) {
		r.refuse("", "must be one YAML document, a group of keys: %s", keysOf(reflect.TypeFor[Config]()))
		return nil
	}
	return documents[0].Body
}

var tabInFront = lazyregexp.New(`(?m)^ *\t`)

// indentedByTab returns the first line that is, from 1; 0: none.
func indentedByTab(text []byte) int {
	at := tabInFront().FindIndex(text)
	if at == nil {
		return 0
	}
	return bytes.Count(text[:at[0]], []byte("\n")) + 1
}

// parseYAML keeps a panic of the parser on odd text from ending a daemon that only reloads its configuration.
func parseYAML(text []byte) (file *ast.File, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the parser gave up; simplify the file")
		}
	}()
	return parser.ParseBytes(bytes.TrimPrefix(text, []byte("\ufeff")), 0)
}

// value reads node into the variable, whose struct tag is given.
func (r *reader) value(key string, node ast.Node, into reflect.Value, tag reflect.StructTag) {
	if node.Type() == ast.NullType {
		return // "key:" with nothing behind it says nothing
	}
	switch into := into.Addr().Interface().(type) {
	case *string:
		*into = r.text(key, node, tag)
	case *credential.Secret:
		if text := r.text(key, node, tag); text != "" {
			*into = credential.NewSecret(text)
		}
	case *time.Duration:
		r.scalar(key, node, ast.StringType, into, "must be a duration with its unit, such as 30s, 5m or 1h")
	case *bool:
		r.scalar(key, node, ast.BoolType, into, "must be true or false")
	case *int:
		r.scalar(key, node, ast.IntegerType, into, "must be a whole number")
	default:
		if reflect.TypeOf(into).Elem().Kind() == reflect.Slice {
			r.list(key, node, reflect.ValueOf(into).Elem())
		} else {
			r.group(key, node, reflect.ValueOf(into).Elem())
		}
	}
}

// scalar has the library read a value. It would also take 1.5 for a whole number.
func (r *reader) scalar(key string, node ast.Node, is ast.NodeType, into any, must string) {
	r.note(key, node)
	r.refuseIf(node.Type() != is || yaml.NodeToValue(node, into) != nil, key, "%s", must)
}

// text returns the text of node, checked as its tag says and, where that is a path, with ${NAME} replaced. A path that was refused is
// empty.
func (r *reader) text(key string, node ast.Node, tag reflect.StructTag) string {
	r.note(key, node)
	var text string
	switch n := node.(type) {
	case *ast.StringNode:
		text = n.Value
	case *ast.LiteralNode:
		text = n.Value.Value
	default:
		if allowed := tag.Get("oneof"); allowed != "" {
			r.refuse(key, mustBeOneOf, strings.Join(strings.Fields(allowed), ", "))
		} else {
			r.refuse(key, "must be text; a number needs quotes")
		}
		return ""
	}
	isPath := tag.Get("is")
	if isPath != "" {
		text = r.expand(key, text)
	}
	allowed := strings.Fields(tag.Get("oneof"))
	r.refuseIf(strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }), key, "holds a line end or a control character")
	r.refuseIf(len(allowed) > 0 && !slices.Contains(allowed, text), key, mustBeOneOf, strings.Join(allowed, ", "))
	r.refuseIf(text == "" && tag.Get("needed") != "", key, "must not be empty; leave the key out for the default")
	r.refuseIf(isPath == "absolute" && text != "" && text[0] != '/', key, mustBeAbsolute)
	if isPath != "" && r.refused[key] {
		return ""
	}
	return text
}

const mustBeOneOf = "must be one of %s"

const mustBeAbsolute = `must be an absolute path, one that begins with "/"`

var variable = lazyregexp.New(`\$\{[^}]*\}`)

// expand replaces each ${NAME} in path. Everything else stays, a lone "$" too.
func (r *reader) expand(key, path string) string {
	return variable().ReplaceAllStringFunc(path, func(name string) string {
		value, _ := r.env(name[2 : len(name)-1])
		remedy := "set it or write the path out"
		if name == "${CREDENTIALS_DIRECTORY}" { // systemd sets it for the daemon, and not for commands in a shell
			remedy = "for the packaged unit: export CREDENTIALS_DIRECTORY=/run/credentials/campaign-credsync.service, and sudo -E"
		}
		// An empty one would silently make "${DIR}/secret_id" a file in the root directory.
		r.refuseIf(value == "", key, "%s is not set in the environment, or empty; %s", name, remedy)
		return value
	})
}

func (r *reader) list(key string, node ast.Node, into reflect.Value) {
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		r.refuse(key, "must be a list")
		return
	}
	into.Set(reflect.MakeSlice(into.Type(), len(sequence.Values), len(sequence.Values)))
	for i, item := range sequence.Values {
		itemKey := fmt.Sprintf("%s[%d]", key, i)
		if !isGroup(item) {
			r.at[itemKey] = item.GetToken().Position
		}
		if into.Index(i).Kind() == reflect.Struct {
			setDefaults(into.Index(i))
		}
		r.value(itemKey, item, into.Index(i), "")
	}
}

// group reads a mapping into a struct.
func (r *reader) group(key string, node ast.Node, into reflect.Value) {
	if !isGroup(node) {
		r.refuse(key, "must be a group of keys: %s", keysOf(into.Type()))
		return
	}
	for entries := node.(ast.MapNode).MapRange(); entries.Next(); {
		name, value := entries.Key().GetToken(), entries.Value()
		inner := join(key, name.Value)
		r.at[inner] = name.Position
		r.at[key] = cmp.Or(r.at[key], name.Position) // an item of a list begins with its first key
		field, known := fieldCalled(into.Type(), name.Value)
		if !known {
			r.unknown(key, name.Value, into.Type())
			continue
		}
		if !isGroup(value) && value.Type() != ast.SequenceType { // of those, the place of the key says more
			r.at[inner] = value.GetToken().Position
		}
		r.value(inner, value, into.FieldByIndex(field.Index), field.Tag)
	}
}

// note remembers the value of a key as it is written, to show it where it is refused.
func (r *reader) note(key string, value ast.Node) {
	switch value.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		if !mayBeSecret(key) {
			r.written[key] = value.GetToken().Value
		}
	}
}

// mayBeSecret reports whether somebody may have written a secret, or what holds one, as the value of key, if only by mistake.
func mayBeSecret(key string) bool {
	isSafe := key == "vault.auth.method" || !strings.HasPrefix(key, "vault.") && !strings.HasPrefix(key, "notify.")
	return !isSafe || key == "ims.endpoint" || strings.Contains(key, ".fields") || strings.HasSuffix(key, ".file")
}

// unknown refuses a key of a group. What was probably meant is not called missing then.
func (r *reader) unknown(key, name string, group reflect.Type) {
	meant := closest(name, strings.Split(keysOf(group), ", "))
	if meant == "" {
		r.refuse(join(key, name), "unknown key; allowed here: %s", keysOf(group))
		return
	}
	r.refuse(join(key, name), "unknown key; did you mean %s? Allowed here: %s", meant, keysOf(group))
	r.meant[join(key, meant)] = true
}

func isGroup(node ast.Node) bool {
	return node.Type() == ast.MappingType || node.Type() == ast.MappingValueType
}

func fieldCalled(group reflect.Type, name string) (reflect.StructField, bool) {
	for field := range group.Fields() {
		if name != "" && keyOf(field) == name {
			return field, true
		}
	}
	return reflect.StructField{}, false
}

// keyOf is the key of a field, or empty for one that the file cannot set.
func keyOf(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
	return strings.TrimPrefix(name, "-")
}

func keysOf(group reflect.Type) string {
	var names []string
	for field := range group.Fields() {
		if name := keyOf(field); name != "" {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// refuse notes a problem with the value of key. The first problem of a key is the one to mend; what follows from it, also for the keys
// of a group that could not be read, would only confuse.
func (r *reader) refuse(key, format string, args ...any) {
	for group := key; group != ""; group = parent(group) {
		if r.refused[group] || r.meant[group] && r.at[group] == nil {
			return
		}
	}
	r.refused[key] = true
	text := fmt.Sprintf(format, args...)
	if value := r.written[key]; value != "" && !strings.Contains(value, "${") { // the message names a variable itself
		text = strconv.Quote(credential.Cut(value, maxShown)) + " " + text
	}
	r.problems = append(r.problems, problem{r.where(key), r.at[key] == nil, r.line(key, text)})
}

func (r *reader) refuseIf(wrong bool, key, format string, args ...any) {
	if wrong {
		r.refuse(key, format, args...)
	}
}

var activationKey = lazyregexp.New(`^(|state_dir|campaign(\..*)?|instances(\[\d+\](\.name)?)?)$`)

// spoilsActivation reports whether a problem concerns what a step of activation depends on.
func (r *reader) spoilsActivation() bool {
	for _, keys := range []map[string]bool{r.refused, r.meant} {
		for key := range keys {
			if activationKey().MatchString(key) {
				return true
			}
		}
	}
	return false
}

// line is one line of an Error. Columns are characters, counted from 1.
func (r *reader) line(key, problem string) string {
	at := r.where(key)
	if key != "" {
		problem = credential.Escape(key) + ": " + problem
	}
	return fmt.Sprintf("%s:%d:%d: %s", credential.Escape(r.file), at.Line, at.Column, problem)
}

// where finds the place of key or, where the file does not have it, of the nearest group around it: instances[1].fields.client_id,
// instances[1].fields, instances[1], …
func (r *reader) where(key string) *token.Position {
	for r.at[key] == nil && key != "" {
		key = parent(key)
	}
	return cmp.Or(r.at[key], &token.Position{Line: 1, Column: 1})
}

func join(key, name string) string { return strings.TrimPrefix(key+"."+name, ".") }

func parent(key string) string { return key[:max(strings.LastIndexAny(key, ".["), 0)] }

// maxShown bounds how much of a value is shown, in bytes.
const maxShown = 60

// err returns the problems in the order of the file, or nil. What is missing comes last, as it may follow from another problem.
func (r *reader) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b problem) int {
		switch {
		case a.absent && !b.absent:
			return 1
		case b.absent && !a.absent:
			return -1
		}
		return cmp.Or(a.at.Line-b.at.Line, a.at.Column-b.at.Column)
	})
	var lines []string
	for _, p := range r.problems {
		lines = append(lines, p.line)
	}
	return Error(strings.Join(lines, "\n"))
}
