package config

import (
	"errors"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"campaign-credsync/internal/credential"
)

// The YAML parser takes time quadratic in these, and its stack grows with the depth. An honest file is far below.
const (
	maxTokens = 100_000
	maxDepth  = 50
	maxColumn = 1000 // for what nests by its column: indentation, "- - -" and "? ? ?"
	maxMerged = 10_000
)

// document parses text and returns the root of its only document.
func (r *reading) document(text []byte) (ast.Node, bool) {
	if at, ok := validUTF8(text); !ok {
		r.refuseAt(at, "", "is not UTF-8 here; save the file as UTF-8")
		return nil, false
	}
	tokens := lexer.Tokenize(strings.TrimPrefix(string(text), "\ufeff"))
	if !r.bounded(tokens) {
		return nil, false
	}
	file, err := parseTokens(tokens)
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
		return nil, false
	}
	var root ast.Node
	for _, document := range file.Docs {
		switch body := document.Body; {
		case body == nil || body.Type() == ast.DirectiveType || body.Type() == ast.CommentType:
		case root == nil:
			root = body
		default:
			r.refuseAt(start(body), "", "a second YAML document begins; the configuration is one document")
			return nil, false
		}
	}
	if root == nil {
		r.refuseAt(position{1, 1}, "", "holds no settings; at least vault and instances are needed")
		return nil, false
	}
	if _, ok := root.(*ast.AnchorNode); !ok && !isMapping(root) {
		r.refuseAt(start(root), "", "must be a group of keys: %s", keysOf(reflect.TypeFor[Config]()))
		return nil, false
	}
	ast.Walk(collectAnchors(r.anchors), root)
	return root, true
}

// parse keeps a panic of the parser on odd text from ending a daemon that only reloads its configuration.
func parseTokens(tokens token.Tokens) (file *ast.File, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the parser gave up; simplify the file")
		}
	}()
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // duplicates are reported by entries, all of them
}

func (r *reading) bounded(tokens token.Tokens) bool {
	depth := 0
	for _, t := range tokens {
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		}
		nests := t.Type == token.SequenceEntryType || t.Type == token.MappingKeyType
		if depth > maxDepth || t.Position.IndentNum > maxColumn || nests && t.Position.Column > maxColumn {
			r.refuseAt(positionOf(t), "", "is nested too deeply")
			return false
		}
	}
	if len(tokens) > maxTokens {
		r.refuseAt(positionOf(tokens[maxTokens]), "", "holds too many keys and values; is it the right file?")
		return false
	}
	return true
}

// resolve looks through anchors and aliases. It returns nil when it had to refuse.
func (r *reading) resolve(key string, node ast.Node) ast.Node {
	for range maxDepth {
		switch n := node.(type) {
		case *ast.AnchorNode:
			node = n.Value
		case *ast.AliasNode:
			// An alias means the nearest anchor of that name before it.
			var target *ast.AnchorNode
			for _, a := range r.anchors[n.Value.GetToken().Value] {
				if a.GetToken().Position.Offset < n.GetToken().Position.Offset {
					target = a
				}
			}
			if target == nil {
				r.refuseAt(start(n), key, "is an alias of nothing above it")
				return nil
			}
			node = target.Value
		default:
			return node
		}
	}
	r.refuse(key, "is an alias of itself")
	return nil
}

type collectAnchors map[string][]*ast.AnchorNode

func (c collectAnchors) Visit(node ast.Node) ast.Visitor {
	if a, ok := node.(*ast.AnchorNode); ok {
		name := a.Name.GetToken().Value
		c[name] = append(c[name], a)
	}
	return c
}

func isMapping(node ast.Node) bool {
	return node != nil && (node.Type() == ast.MappingType || node.Type() == ast.MappingValueType)
}

// holdsMore reports whether node is a group or a list, for which the place of its key says more than its first token's.
func holdsMore(node ast.Node) bool {
	if a, ok := node.(*ast.AnchorNode); ok {
		node = a.Value
	}
	return node == nil || isMapping(node) || node.Type() == ast.SequenceType
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

func wholeNumber(node ast.Node) (int64, bool) {
	n, ok := node.(*ast.IntegerNode)
	if !ok {
		return 0, false
	}
	switch v := n.Value.(type) {
	case int64:
		return v, true
	case uint64:
		return int64(v), v < 1<<63
	}
	return 0, false
}

// validUTF8 returns where the first byte stands that is not UTF-8.
func validUTF8(text []byte) (position, bool) {
	at := position{1, 1}
	for i := 0; i < len(text); {
		c, size := utf8.DecodeRune(text[i:])
		if c == utf8.RuneError && size == 1 {
			return at, false
		}
		at.column++
		if c == '\n' {
			at = position{at.line + 1, 1}
		}
		i += size
	}
	return at, true
}
