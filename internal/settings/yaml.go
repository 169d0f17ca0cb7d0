package settings

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Limits of the file.
const (
	maxFile = 64 << 10 // bytes
	maxList = 256      // items of a list
	maxText = 4096     // bytes of a value
)

// reader takes settings out of YAML, and gathers what is wrong. The settings are read
// key by key and not by a struct's tags, so that one run finds all mistakes, each with
// its line, and so that nothing has a meaning that the file's reader does not see:
// anchors, aliases, tags and merge keys are refused.
type reader struct {
	file   string
	errors Errors
	known  []string // every key that was asked for, with its path
}

func (r *reader) errf(line int, key, format string, args ...any) {
	r.errors = append(r.errors, Error{r.file, line, key, fmt.Sprintf(format, args...)})
}

// err returns what was found, sorted, or nil.
func (r *reader) err() error {
	if len(r.errors) == 0 {
		return nil
	}
	slices.SortStableFunc(r.errors, func(a, b Error) int { return cmp.Compare(a.Line, b.Line) })
	if more := len(r.errors) - maxErrors; more > 0 {
		r.errors = append(r.errors[:maxErrors:maxErrors], Error{File: r.file, Text: fmt.Sprintf("and %d more", more)})
	}
	return r.errors
}

// document returns the one mapping that data is.
func (r *reader) document(data []byte) *mapping {
	none := &mapping{r: r}
	if len(data) > maxFile {
		r.errf(0, "", "larger than %d bytes: this is no file of settings", maxFile)
		return none
	}
	if !utf8.Valid(data) || strings.ContainsRune(string(data), 0) {
		r.errf(0, "", "no text in UTF-8")
		return none
	}
	file, err := parser.ParseBytes(data, 0)
	var syntax *yaml.SyntaxError
	switch {
	case errors.As(err, &syntax):
		r.errf(syntax.Token.Position.Line, "", "YAML: %s", firstLine(syntax.Message))
		return none
	case err != nil:
		r.errf(0, "", "YAML: %s", firstLine(err.Error()))
		return none
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			r.errf(line(doc.Body), "", "a second document: the file is one")
			return none
		}
		body = doc.Body
	}
	if body == nil {
		r.errf(0, "", "no settings in it")
		return none
	}
	return r.mapping("", body)
}

// mapping reads a node that has keys. It is never nil.
func (r *reader) mapping(path string, n ast.Node) *mapping {
	m := &mapping{r: r, path: path, line: line(n), values: make(map[string]ast.Node)}
	var pairs []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	case *ast.NullNode: // `ca:` alone is the CA with all its defaults
	default:
		m.broken = true
		if r.plain(path, n) {
			r.errf(m.line, path, "%s: it has keys of its own, each on an indented line", describe(n))
		}
		return m
	}
	for _, p := range pairs {
		at := p.GetToken().Position.Line
		key, ok := p.Key.(*ast.StringNode)
		if !ok {
			text := "?"
			if t := p.Key.GetToken(); t != nil {
				text = t.Value
			}
			if n, ok := p.Key.(ast.ScalarNode); ok && n.Type() != ast.MergeKeyType {
				r.errf(at, path, "unknown key %q", clip(text))
			} else {
				r.errf(at, path, "%q: keys are plain words here", clip(text))
			}
			continue
		}
		if _, twice := m.values[key.Value]; twice {
			r.errf(at, m.join(key.Value), "it is there twice")
			continue
		}
		m.order = append(m.order, key.Value)
		m.lines = append(m.lines, line(key))
		m.values[key.Value] = p.Value
	}
	return m
}

// plain reports whether n is what stands there and no reference to something else.
func (r *reader) plain(path string, n ast.Node) bool {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode:
		r.errf(line(n), path, "anchors and aliases are not understood: write the value itself (quoted, if it begins with & or *)")
	case *ast.TagNode:
		r.errf(line(n), path, "tags are not understood: write the value itself (quoted, if it begins with !)")
	default:
		return true
	}
	return false
}

// mapping is a node's keys. done must be called when all were asked for.
type mapping struct {
	r      *reader
	path   string
	line   int
	values map[string]ast.Node
	order  []string
	lines  []int // of order
	asked  []string
	broken bool // it is no mapping, which was said
}

func (m *mapping) join(key string) string {
	if m.path == "" {
		return key
	}
	return m.path + "." + key
}

// take returns the node of a key, nil if it is not there.
func (m *mapping) take(key string) ast.Node {
	m.asked = append(m.asked, key)
	m.r.known = append(m.r.known, m.join(key))
	return m.values[key]
}

// has says whether the file has a key, with whatever value.
func (m *mapping) has(key string) bool { return m.values[key] != nil }

// lineOf is where a key is, or where it would have to be.
func (m *mapping) lineOf(key string) int {
	if i := slices.Index(m.order, key); i >= 0 {
		return m.lines[i]
	}
	return m.line
}

// errf says what is wrong with a key.
func (m *mapping) errf(key, format string, args ...any) {
	m.r.errf(m.lineOf(key), m.join(key), format, args...)
}

// mapping returns the keys below one; they are none where it is not there.
func (m *mapping) mapping(key string) *mapping {
	n := m.take(key)
	if n == nil {
		return &mapping{r: m.r, path: m.join(key), line: m.line}
	}
	return m.r.mapping(m.join(key), n)
}

// items returns the items of a list, nil where it is not there.
func (m *mapping) items(key, like string) []ast.Node {
	n := m.take(key)
	if n == nil {
		return nil
	}
	return m.r.items(m.join(key), n, like)
}

func (r *reader) items(path string, n ast.Node, like string) []ast.Node {
	seq, ok := n.(*ast.SequenceNode)
	switch {
	case !ok && !r.plain(path, n):
	case !ok:
		r.errf(line(n), path, "%s is no list: write %s", describe(n), like)
	case len(seq.Values) > maxList:
		r.errf(line(n), path, "%d items: at most %d", len(seq.Values), maxList)
	default:
		return seq.Values
	}
	return nil
}

// done refuses the keys that nobody asked for.
func (m *mapping) done() {
	for i, key := range m.order {
		if slices.Contains(m.asked, key) {
			continue
		}
		text := fmt.Sprintf("unknown key %q", clip(key))
		if like := closest(key, m.asked); like != "" {
			text += fmt.Sprintf(": did you mean %s?", like)
		} else {
			text += ": here are " + strings.Join(m.asked, ", ")
		}
		m.r.errf(m.lines[i], m.path, "%s", text)
	}
}

// scalar returns the text of a single value.
func (r *reader) scalar(path string, n ast.Node) (text string, ok bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		text = n.Value
	case *ast.LiteralNode:
		text = strings.TrimSpace(n.Value.Value)
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		text = n.GetToken().Value
	case *ast.NullNode:
		r.errf(line(n), path, "no value: write one, or take the key out for its default")
		return "", false
	default:
		if r.plain(path, n) {
			r.errf(line(n), path, "%s, where a single value belongs", describe(n))
		}
		return "", false
	}
	switch {
	case len(text) > maxText:
		r.errf(line(n), path, "%d bytes: at most %d", len(text), maxText)
	case strings.ContainsFunc(text, func(c rune) bool { return c < ' ' && c != '\n' && c != '\t' || c == 0x7f }):
		r.errf(line(n), path, "a control character in %q", clip(text))
	case text == "":
		r.errf(line(n), path, "empty: write a value, or take the key out for its default")
	default:
		return text, true
	}
	return "", false
}

func line(n ast.Node) int {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return 0
	}
	return n.GetToken().Position.Line
}

// describe says what kind of thing a node is.
func describe(n ast.Node) string {
	switch n := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "nothing"
	case *ast.StringNode:
		return fmt.Sprintf("%q", clip(n.Value))
	}
	if n.GetToken() == nil {
		return n.Type().String()
	}
	return fmt.Sprintf("%q", clip(n.GetToken().Value))
}

// clip keeps what is quoted in an error short.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	s = s[:most]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "..."
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return clip(s)
}
