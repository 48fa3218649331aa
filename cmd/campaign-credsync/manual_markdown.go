//go:build manual

package main

import (
	"fmt"
	"reflect"
	"strings"

	"campaign-credsync/internal/config"
)

// configMarkdown is docs/configure.md.
func configMarkdown() []byte {
	p := &page{}
	p.WriteString(configureHead)
	group := ""
	for _, k := range keysOf("", reflect.TypeFor[config.Config](), "") {
		of, name, inner := strings.Cut(k.name, ".")
		if !inner {
			of, name = "Without a group", k.name
		}
		if of != group {
			group = of
			fmt.Fprintf(p, "\n## %s\n\n", of)
		}
		text := k.text
		if k.allowed != "" {
			text = strings.TrimSpace("`" + strings.ReplaceAll(k.allowed, ", ", "`, `") + "`. " + text)
		}
		if k.fallback != "" {
			name += "`, default `" + strings.Trim(k.fallback, "'")
		}
		line := "- `" + name + "`: " + strings.TrimSuffix(text, ".")
		p.WriteString(strings.TrimSuffix(line, ": ") + "\n")
	}
	return p.Bytes()
}

const configureHead = `# Configure

Made by ` + "`make docs`" + ` from the table that the program reads by; do not edit.

` + "`/etc/campaign-credsync/config.yaml`" + `, YAML, owner root:neolane, mode 0640. [The example](../packaging/systemd/config.example.yaml) has every key. Needed: ` +
	"`vault.address`, `vault.auth.role_id`" + ` (or what another [login](vault.md#logins) takes), and of each instance ` + "`name` and `path`" + `.
An unknown key or a bad value stops the start, and ` + "`campaign-credsync validate`" + ` tells file, line and column; ` + "`validate --effective`" + `
prints the file with every default filled in. After a change: ` + "`systemctl reload campaign-credsync`" + `; [what a reload changes](operate.md#reload).

Durations have a unit: 500ms, 30s, 5m, 1h. ` + "`${NAME}`" + ` in a path is replaced from the environment. Schedules are cron expressions: five fields, ` + "`@daily`, `@every 10m`" + `.
The file wins over ` + "`VAULT_ADDR`, `VAULT_NAMESPACE`, `VAULT_CACERT`, `VAULT_CLIENT_CERT`, `VAULT_CLIENT_KEY`, `VAULT_TLS_SERVER_NAME`" + `.
`
