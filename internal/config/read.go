package config

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/goccy/go-yaml/ast"

	"campaign-credsync/internal/credential"
)

// reading turns the text of a configuration file into a config. The YAML library's own strict decoder stops at the first
// problem and forgets where the values stood; this walks its syntax tree along the struct and keeps both.
type reading struct {
	env func(string) (string, bool)

	at         map[string]position // key → where its value stands
	refused    map[string]bool     // key → has a problem already
	from       map[string]string   // key → the VAULT_* variable that its value came from
	anchors    map[string][]*ast.AnchorNode
	merged     int // groups and entries that came through "<<" so far
	problems   []problem
	unreadable bool // not a YAML mapping at all: further checks would only complain of what is missing
}

func newReading(env func(string) (string, bool)) *reading {
	return &reading{
		env:     env,
		at:      map[string]position{},
		refused: map[string]bool{},
		from:    map[string]string{},
		anchors: map[string][]*ast.AnchorNode{},
	}
}

func (r *reading) read(text []byte, into *Config) {
	root, ok := r.document(text)
	if !ok {
		r.unreadable = true
		return
	}
	r.value("", root, reflect.ValueOf(into).Elem(), "")
}

// value reads node into the variable; is comes from its struct tag.
func (r *reading) value(key string, node ast.Node, into reflect.Value, is string) {
	node = r.resolve(key, node)
	if node == nil {
		return
	}
	if _, tagged := node.(*ast.TagNode); tagged {
		r.refuse(key, "has a YAML tag; remove it, and put text in quotes where needed")
		return
	}
	if node.Type() == ast.NullType && !strings.HasSuffix(key, "]") {
		return // "key:" with nothing behind it says nothing
	}
	switch into.Interface().(type) {
	case time.Duration:
		r.duration(key, node, into)
		return
	case credential.Secret:
		if text, ok := r.text(key, node); ok {
			into.Set(reflect.ValueOf(credential.NewSecret(text)))
		}
		return
	}
	switch into.Kind() {
	case reflect.Struct:
		r.group(key, node, into)
	case reflect.Slice:
		r.list(key, node, into)
	case reflect.String:
		if text, ok := r.text(key, node); ok {
			into.SetString(r.path(key, text, is))
		}
	case reflect.Bool:
		if b, ok := node.(*ast.BoolNode); ok {
			into.SetBool(b.Value)
		} else {
			r.refuse(key, "must be true or false")
		}
	case reflect.Int:
		if n, ok := wholeNumber(node); ok {
			into.SetInt(n)
		} else {
			r.refuse(key, "must be a whole number")
		}
	}
}

func (r *reading) duration(key string, node ast.Node, into reflect.Value) {
	if s, ok := node.(*ast.StringNode); ok {
		if d, err := time.ParseDuration(s.Value); err == nil {
			into.SetInt(int64(d))
			return
		}
	}
	r.refuse(key, "must be a duration with its unit, such as 30s, 5m or 1h")
}

func (r *reading) text(key string, node ast.Node) (string, bool) {
	var text string
	switch n := node.(type) {
	case *ast.StringNode:
		text = n.Value
	case *ast.LiteralNode:
		text = n.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode, *ast.InfinityNode, *ast.NanNode:
		r.refuse(key, "must be text; put it in quotes")
		return "", false
	default:
		r.refuse(key, "must be text")
		return "", false
	}
	if strings.ContainsFunc(text, unprintable) {
		r.refuse(key, "holds a line end or a control character")
		return "", false
	}
	return text, true
}

// path replaces ${NAME} where is says that text is a path, and makes sure of the "/" in front where it must be absolute.
func (r *reading) path(key, text, is string) string {
	if is == "" {
		return text
	}
	expanded, err := expand(text, r.env)
	if err != nil {
		r.refuse(key, "%v", err)
		return ""
	}
	if strings.ContainsFunc(expanded, unprintable) {
		r.refuse(key, "holds, after the environment was filled in, a line end or a control character")
		return ""
	}
	if is == "absolute" && expanded != "" && expanded[0] != '/' {
		r.refuse(key, `must be an absolute path, one that begins with "/"`)
		return ""
	}
	return expanded
}

func (r *reading) list(key string, node ast.Node, into reflect.Value) {
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		r.refuse(key, "must be a list")
		return
	}
	into.Set(reflect.MakeSlice(into.Type(), len(sequence.Values), len(sequence.Values)))
	for i, item := range sequence.Values {
		itemKey := key + "[" + strconv.Itoa(i) + "]"
		if item == nil {
			r.refuse(itemKey, "is empty")
			continue
		}
		r.at[itemKey] = start(item)
		if d, ok := into.Index(i).Addr().Interface().(interface{ setDefaults() }); ok {
			d.setDefaults()
		}
		r.value(itemKey, item, into.Index(i), "")
	}
}

// group reads a mapping into a struct.
func (r *reading) group(key string, node ast.Node, into reflect.Value) {
	if !isMapping(node) {
		r.refuse(key, "must be a group of keys: %s", keysOf(into.Type()))
		return
	}
	for _, e := range r.entries(key, node, 0) {
		field, ok := fieldCalled(into.Type(), e.name)
		if !ok {
			r.refuseAt(e.at, join(key, credential.Escape(e.name)), "unknown key; allowed here: %s", keysOf(into.Type()))
			continue
		}
		fieldKey := join(key, e.name)
		r.at[fieldKey] = e.at
		if !holdsMore(e.value) {
			r.at[fieldKey] = start(e.value)
		}
		r.value(fieldKey, e.value, into.FieldByIndex(field.Index), field.Tag.Get("is"))
	}
}

type entry struct {
	name  string
	at    position // of the name
	value ast.Node
}

// entries lists a mapping's own entries, then those that "<<" adds. Keys given twice are refused.
func (r *reading) entries(key string, mapping ast.Node, depth int) []entry {
	var found []entry
	var merges []ast.Node
	iterator := mapping.(ast.MapNode).MapRange()
	for iterator.Next() {
		if iterator.Key().IsMergeKey() {
			merges = append(merges, iterator.Value())
			continue
		}
		var name ast.Node = iterator.Key()
		if explicit, ok := name.(*ast.MappingKeyNode); ok && explicit.Value != nil {
			name = explicit.Value // "? name" on a line of its own
		}
		e := entry{name.GetToken().Value, positionOf(name.GetToken()), iterator.Value()}
		if first := slices.IndexFunc(found, func(f entry) bool { return f.name == e.name }); first >= 0 {
			// A key of its own, as the value that stands first may have its own problem.
			again := join(key, credential.Escape(e.name))
			r.problems = append(r.problems, problem{e.at, again, "is there twice; the first is in line " + strconv.Itoa(found[first].at.line)})
			continue
		}
		found = append(found, e)
	}
	for _, merge := range merges {
		found = r.merge(key, merge, depth, found)
	}
	return found
}

func (r *reading) merge(key string, from ast.Node, depth int, found []entry) []entry {
	at := start(from)
	from = r.resolve(key, from)
	sources := []ast.Node{from}
	if sequence, ok := from.(*ast.SequenceNode); ok {
		sources = sequence.Values
	}
	for _, source := range sources {
		if source = r.resolve(key, source); source == nil {
			continue // said by resolve
		}
		if !isMapping(source) {
			r.refuseAt(at, join(key, "<<"), "must be an alias of a group, or a list of such")
			continue
		}
		if depth > maxDepth || r.merged > maxMerged {
			r.refuseAt(at, join(key, "<<"), "merges too much, or itself")
			return found
		}
		r.merged++
		for _, e := range r.entries(key, source, depth+1) {
			r.merged++
			if !slices.ContainsFunc(found, func(f entry) bool { return f.name == e.name }) {
				found = append(found, e)
			}
		}
	}
	return found
}

func fieldCalled(group reflect.Type, name string) (reflect.StructField, bool) {
	for field := range group.Fields() {
		if name != "" && field.Tag.Get("yaml") == name {
			return field, true
		}
	}
	return reflect.StructField{}, false
}

func keysOf(group reflect.Type) string {
	var names []string
	for field := range group.Fields() {
		if name := field.Tag.Get("yaml"); name != "" {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
