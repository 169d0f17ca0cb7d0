package admin

import "slices"

// Routes are the server's operations: method, path, query parameters, and "body".
func Routes() []string {
	var lines []string
	for _, r := range routes {
		line := r.method + " " + r.path
		for _, q := range r.query {
			line += " " + q
		}
		if r.body {
			line += " body"
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}
