package logging_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// top is the top of the source.
const top = "../.."

// The keys of log lines are public: every one that the product writes stands in docs/operate.md, and none there is of the past.
func TestKeysAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(top, "docs", "operate.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\nKeys: ")
	if !found {
		t.Fatal("operate.md has no list of keys")
	}
	section, _, _ = strings.Cut(section, "\n\n")
	documented := map[string]bool{}
	for _, key := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(section, -1) {
		documented[key[1]] = true
	}
	used := keysInUse(t)
	for key, at := range used {
		if !documented[key] {
			t.Errorf("%s: the key %q is not in the list of operate.md", at, key)
		}
	}
	for key := range documented {
		if used[key] == "" {
			t.Errorf("operate.md lists the key %q, which nothing writes", key)
		}
	}
	if len(used) < 10 {
		t.Errorf("only %d keys found: %v", len(used), used)
	}
}

// keysInUse are the keys of every log line that the product's source has, each with a place.
func keysInUse(t *testing.T) map[string]string {
	used := map[string]string{}
	files := token.NewFileSet()
	for _, dir := range []string{"cmd", "internal", "sinks", "sources", "sync"} {
		err := filepath.WalkDir(filepath.Join(top, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(files, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				var args []ast.Expr
				switch n := n.(type) {
				case *ast.CallExpr:
					args = attributesOf(n)
				case *ast.CompositeLit: // a list of them that is handed on
					if list, ok := n.Type.(*ast.ArrayType); ok && isAny(list.Elt) {
						args = n.Elts
					}
				}
				for i := 0; i+1 < len(args); i += 2 {
					if key, ok := args[i].(*ast.BasicLit); ok && key.Kind == token.STRING {
						name, _ := strconv.Unquote(key.Value)
						used[name] = files.Position(key.Pos()).String()
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return used
}

func isAny(e ast.Expr) bool {
	name, ok := e.(*ast.Ident)
	return ok && name.Name == "any"
}

// attributesOf returns the keys and values of a call that logs; nil where it is none.
func attributesOf(call *ast.CallExpr) []ast.Expr {
	name := ""
	switch f := call.Fun.(type) {
	case *ast.SelectorExpr:
		if of, ok := f.X.(*ast.Ident); !ok || of.Name != "http" { // which has an Error of its own
			name = f.Sel.Name
		}
	case *ast.Ident:
		name = f.Name
	}
	before, logs := map[string]int{ // the arguments before the attributes
		"Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "With": 0, "Log": 3, "Tell": 5,
		"failed": 4, "log": 2, "tellReverted": 2, "logOnce": 3, "append": 1,
	}[name]
	if !logs || len(call.Args) <= before {
		return nil
	}
	return call.Args[before:]
}
