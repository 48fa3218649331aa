package config

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"campaign-credsync/internal/credential"
)

// reader turns the text of a configuration file into a Config. The YAML library's own strict decoder stops at the first problem and
// does not keep positions. So reader walks the library's syntax tree along the struct.
type reader struct {
	env func(string) (string, bool)

	at       map[string]position // key → where its value stands; not for "key:" with nothing behind it
	refused  map[string]bool     // key → has a problem already
	from     map[string]string   // key → the VAULT_* variable that its value came from
	problems []problem
}

const mustBeAbsolute = `must be an absolute path, one that begins with "/"`

// read reports whether text is a YAML mapping. If not, there is nothing to check further.
func (r *reader) read(text []byte, into *Config) bool {
	root := r.document(text)
	if root != nil {
		r.value("", root, reflect.ValueOf(into).Elem(), "")
	}
	return root != nil
}

// document parses text and returns the root of its only document, or nil.
func (r *reader) document(text []byte) ast.Node {
	lines := 0
	for line := range bytes.Lines(text) {
		lines++
		if !utf8.Valid(line) {
			r.refuseAt(position{lines, 1}, "", "is not UTF-8 in this line; save the file as UTF-8")
			return nil
		}
	}
	file, err := parseYAML(text)
	if err != nil {
		at, message := position{1, 1}, err.Error()
		var syntax yaml.Error
		if errors.As(err, &syntax) {
			message = syntax.GetMessage() // without the excerpt, which could hold a secret
			if t := syntax.GetToken(); t != nil {
				at = positionOf(t)
			}
		}
		r.refuseAt(at, "", "is not YAML: %s", credential.Escape(message))
		return nil
	}
	var root ast.Node
	for _, document := range file.Docs {
		switch body := document.Body; {
		case body == nil || body.Type() == ast.DirectiveType || body.Type() == ast.CommentType:
		case root != nil:
			r.refuseAt(start(body), "", "a second YAML document begins; the configuration is one document")
			return nil
		default:
			root = body
		}
	}
	switch {
	case root == nil:
		r.refuseAt(position{1, 1}, "", "holds no settings; at least vault and instances are needed")
	case !isMapping(root):
		r.refuseAt(start(root), "", "must be a group of keys: %s", keysOf(reflect.TypeFor[Config]()))
		return nil
	}
	return root
}

// parseYAML keeps a panic of the parser on odd text from ending a daemon that only reloads its configuration.
func parseYAML(text []byte) (file *ast.File, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the parser gave up; simplify the file")
		}
	}()
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	return parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey()) // group reports duplicates, all of them
}

// value reads node into the variable, whose struct tag is given.
func (r *reader) value(key string, node ast.Node, into reflect.Value, tag reflect.StructTag) {
	switch node.Type() {
	case ast.AnchorType, ast.AliasType, ast.TagType:
		r.refuse(key, "has a YAML anchor, alias or tag; write the value out, and put text in quotes where needed")
		return
	case ast.NullType:
		if !strings.HasSuffix(key, "]") {
			return // "key:" with nothing behind it says nothing
		}
	}
	switch into := into.Addr().Interface().(type) {
	case *string:
		*into = r.text(key, node, tag)
	case *credential.Secret:
		if text := r.text(key, node, ""); text != "" {
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
	if node.Type() != is || yaml.NodeToValue(node, into) != nil {
		r.refuse(key, "%s", must)
	}
}

// text returns the text of node, checked as its tag says and, where that is a path, with ${NAME} replaced. It is empty when it was
// refused.
func (r *reader) text(key string, node ast.Node, tag reflect.StructTag) string {
	var text string
	switch n := node.(type) {
	case *ast.StringNode:
		text = n.Value
	case *ast.LiteralNode:
		text = n.Value.Value
	case *ast.MappingNode, *ast.MappingValueNode, *ast.SequenceNode:
		r.refuse(key, "must be text")
		return ""
	default: // numbers and the like
		r.refuse(key, "must be text; put it in quotes")
		return ""
	}
	allowed := strings.Fields(tag.Get("oneof"))
	switch {
	case strings.ContainsFunc(text, unprintable):
		r.refuse(key, "holds a line end or a control character")
		return ""
	case len(allowed) > 0 && !slices.Contains(allowed, text):
		r.refuse(key, "must be one of %s", strings.Join(allowed, ", "))
	case text == "" && tag.Get("needed") != "":
		r.refuse(key, "must not be empty; leave the key out for the default")
	}
	if tag.Get("is") == "" || text == "" {
		return text
	}
	path, err := expand(text, r.env)
	switch {
	case err != nil:
		r.refuse(key, "%v", err)
	case strings.ContainsFunc(path, unprintable):
		r.refuse(key, "holds, after the environment was filled in, a line end or a control character")
	case tag.Get("is") == "absolute" && path[0] != '/':
		r.refuse(key, mustBeAbsolute)
	default:
		return path
	}
	return ""
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
		if item == nil {
			r.refuse(itemKey, "is empty")
			continue
		}
		r.at[itemKey] = start(item)
		if instance, ok := into.Index(i).Addr().Interface().(*Instance); ok {
			instance.setDefaults()
		}
		r.value(itemKey, item, into.Index(i), "")
	}
}

// group reads a mapping into a struct.
func (r *reader) group(key string, node ast.Node, into reflect.Value) {
	if !isMapping(node) {
		r.refuse(key, "must be a group of keys: %s", keysOf(into.Type()))
		return
	}
	first := map[string]position{}
	for entries := node.(ast.MapNode).MapRange(); entries.Next(); {
		var name ast.Node = entries.Key()
		if explicit, ok := name.(*ast.MappingKeyNode); ok && explicit.Value != nil {
			name = explicit.Value // "? name" on a line of its own
		}
		text, value := name.GetToken().Value, entries.Value()
		at, inner := positionOf(name.GetToken()), join(key, text)
		field, known := fieldCalled(into.Type(), text)
		if before, twice := first[text]; twice {
			// Noted directly, as the value that stands first may have a problem of its own.
			r.problems = append(r.problems, problem{at, credential.Escape(inner), fmt.Sprintf("is there twice; the first is in line %d", before.line)})
			continue
		}
		first[text] = at
		if !known {
			r.refuseAt(at, credential.Escape(inner), "unknown key; allowed here: %s", keysOf(into.Type()))
			continue
		}
		if !isMapping(value) && value.Type() != ast.SequenceType { // of those, the place of the key says more
			at = start(value)
		}
		if value.Type() != ast.NullType {
			r.at[inner] = at
		}
		r.value(inner, value, into.FieldByIndex(field.Index), field.Tag)
	}
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

func join(key, name string) string { return strings.TrimPrefix(key+"."+name, ".") }

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

func isMapping(node ast.Node) bool {
	return node.Type() == ast.MappingType || node.Type() == ast.MappingValueType
}

// start is where node begins; the token of a block mapping is its first ":".
func start(node ast.Node) position {
	switch n := node.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return start(n.Values[0])
		}
	case *ast.MappingValueNode:
		return positionOf(n.Key.GetToken())
	}
	return positionOf(node.GetToken())
}

func positionOf(t *token.Token) position { return position{t.Position.Line, t.Position.Column} }
