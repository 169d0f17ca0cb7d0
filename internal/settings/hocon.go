package settings

import "strings"

// maxDepth bounds the braces within braces of a file.
const maxDepth = 64

// hocon calls found with each plain value of a HOCON file, in the file's order, and with
// its keys joined by dots. It is no whole reader of the format: what is included or
// substituted stays as it is written, lists are passed over, and of a file that is broken
// it says what it can. JSON is read too.
func hocon(data []byte, found func(key, value string)) {
	var within []string // the keys of the braces that are open; "[" is a list
	var key string      // before its value
	var text strings.Builder
	end := func() { // of a value
		if v := strings.TrimSpace(text.String()); key != "" && v != "" && !listed(within) {
			found(joined(within, key), v)
		}
		key = ""
		text.Reset()
	}
	s := string(data)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '#', strings.HasPrefix(s[i:], "//"):
			for i+1 < len(s) && s[i+1] != '\n' {
				i++
			}
		case strings.HasPrefix(s[i:], "${"): // no brace of an object
			n := strings.IndexByte(s[i:], '}')
			if n < 0 {
				return // nothing more can be told
			}
			text.WriteString(s[i : i+n+1])
			i += n
		case c == '"':
			inner, n := quoted(s[i:])
			text.WriteString(inner)
			i += n - 1
		case (c == ':' || c == '=') && key == "":
			key = strings.TrimSpace(strings.TrimSuffix(text.String(), "+"))
			text.Reset()
		case c == '{':
			if key == "" { // the separator may be left out
				key = strings.TrimSpace(text.String())
			}
			if len(within) == maxDepth {
				return
			}
			within, key = append(within, key), ""
			text.Reset()
		case c == '[':
			if len(within) == maxDepth {
				return
			}
			within = append(within, "[")
		case c == '}', c == ']':
			end()
			within = within[:max(0, len(within)-1)]
		case c == ',':
			end()
		case c == '\n':
			// A value, or a brace, may begin on the next line.
			if v := strings.TrimSpace(text.String()); v != "" && (key != "" || strings.HasPrefix(v, "include")) {
				end()
			}
		default:
			text.WriteByte(c)
		}
	}
	end()
}

// quoted is what stands in the quotes that s begins with, and how long that is with them.
func quoted(s string) (inner string, n int) {
	const triple = `"""`
	if rest, ok := strings.CutPrefix(s, triple); ok {
		if at := strings.Index(rest, triple); at >= 0 {
			return rest[:at], at + 2*len(triple)
		}
		return rest, len(s)
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"', '\n':
			return s[1:i], i + 1
		}
	}
	return s[1:], len(s)
}

func listed(within []string) bool {
	for _, w := range within {
		if w == "[" {
			return true
		}
	}
	return false
}

// joined leaves out the braces around a whole file.
func joined(within []string, key string) string {
	var all []string
	for _, w := range append(within[:len(within):len(within)], key) {
		if w != "" {
			all = append(all, w)
		}
	}
	return strings.Join(all, ".")
}
