// Calls one function of the program with JSON arguments from stdin and prints {"value": ..., "args": [...]}.
package main

import (
	rayzeroJSON "encoding/json"
	rayzeroOS "os"
	rayzeroReflect "reflect"
)

func main() {
	out := rayzeroOS.Stdout
	var given []rayzeroJSON.RawMessage
	if rayzeroJSON.NewDecoder(rayzeroOS.Stdin).Decode(&given) != nil {
		rayzeroOS.Exit(1)
	}
	null, _ := rayzeroOS.OpenFile("/dev/null", rayzeroOS.O_RDWR, 0)
	rayzeroOS.Stdout, rayzeroOS.Stdin = null, null
	target := rayzeroReflect.ValueOf(TARGET)
	kind := target.Type()
	if kind.NumIn() != len(given) {
		rayzeroOS.Exit(1)
	}
	values := make([]rayzeroReflect.Value, len(given))
	args := make([]any, len(given))
	for i, text := range given {
		slot := rayzeroReflect.New(kind.In(i))
		if rayzeroBuild(text, slot.Elem()) != nil {
			rayzeroOS.Exit(1)
		}
		values[i] = slot.Elem()
	}
	var value any
	if results := target.Call(values); len(results) > 0 {
		if value = rayzeroPlain(results[0]); rayzeroNamed && rayzeroIsNode(results[0].Type(), "Left") && !results[0].IsNil() {
			value = results[0].Elem().FieldByName("Val").Interface()
		}
	}
	for i, argument := range values {
		args[i] = rayzeroPlain(argument)
	}
	text, err := rayzeroJSON.Marshal(map[string]any{"value": value, "args": args})
	if err != nil {
		rayzeroOS.Exit(1)
	}
	out.Write(text)
	rayzeroOS.Exit(0)
}

// LeetCode's linked lists and trees: [1,2,3], and [3,9,20,null,null,15,7] level by level.

const rayzeroMaxNodes = 1000000

var rayzeroKnown []rayzeroReflect.Value
var rayzeroNamed bool // an integer argument names a node of the tree before it, and so does the result

func rayzeroIsNode(kind rayzeroReflect.Type, link string) bool {
	if kind.Kind() != rayzeroReflect.Ptr || kind.Elem().Kind() != rayzeroReflect.Struct {
		return false
	}
	field, found := kind.Elem().FieldByName(link)
	_, value := kind.Elem().FieldByName("Val")
	return found && value && field.Type == kind
}

func rayzeroNode(text rayzeroJSON.RawMessage, kind rayzeroReflect.Type) (rayzeroReflect.Value, error) {
	made := rayzeroReflect.New(kind.Elem())
	return made, rayzeroJSON.Unmarshal(text, made.Elem().FieldByName("Val").Addr().Interface())
}

func rayzeroBuild(text rayzeroJSON.RawMessage, slot rayzeroReflect.Value) error {
	kind := slot.Type()
	isList, isTree := rayzeroIsNode(kind, "Next"), rayzeroIsNode(kind, "Left")
	if kind.Kind() == rayzeroReflect.Uint8 && len(text) > 0 && text[0] == '"' { // a character
		var letter string
		err := rayzeroJSON.Unmarshal(text, &letter)
		if err == nil && len(letter) == 1 {
			slot.SetUint(uint64(letter[0]))
		}
		return err
	}
	if kind.Kind() == rayzeroReflect.Slice {
		var items []rayzeroJSON.RawMessage
		if err := rayzeroJSON.Unmarshal(text, &items); err != nil {
			return err
		}
		slot.Set(rayzeroReflect.MakeSlice(kind, len(items), len(items)))
		for i, item := range items {
			if err := rayzeroBuild(item, slot.Index(i)); err != nil {
				return err
			}
		}
		return nil
	}
	if !isList && !isTree {
		return rayzeroJSON.Unmarshal(text, slot.Addr().Interface())
	}
	if isTree && len(text) > 0 && text[0] != '[' && text[0] != 'n' {
		made, err := rayzeroNode(text, kind)
		rayzeroNamed = true
		for _, node := range rayzeroKnown {
			if node.Type() == kind && rayzeroReflect.DeepEqual(node.Elem().FieldByName("Val").Interface(), made.Elem().FieldByName("Val").Interface()) {
				made = node
				break
			}
		}
		slot.Set(made)
		return err
	}
	var items []rayzeroJSON.RawMessage
	if err := rayzeroJSON.Unmarshal(text, &items); err != nil {
		return err
	}
	if len(items) == 0 || string(items[0]) == "null" {
		return nil
	}
	first, err := rayzeroNode(items[0], kind)
	if err != nil {
		return err
	}
	slot.Set(first)
	level := []rayzeroReflect.Value{first}
	links := []string{"Left", "Right"}
	if isList {
		links = []string{"Next"}
	}
	for i, at := 0, 1; i < len(level); i++ {
		for _, link := range links {
			if at >= len(items) {
				break
			}
			if string(items[at]) != "null" {
				made, err := rayzeroNode(items[at], kind)
				if err != nil {
					return err
				}
				level[i].Elem().FieldByName(link).Set(made)
				level = append(level, made)
			}
			at++
		}
	}
	rayzeroKnown = append(rayzeroKnown, level...)
	return nil
}

func rayzeroPlain(value rayzeroReflect.Value) any {
	kind := value.Type()
	if kind.Kind() == rayzeroReflect.Uint8 { // a character
		return string(rune(value.Uint()))
	}
	if kind.Kind() == rayzeroReflect.Slice { // nil is the empty one
		items := make([]any, value.Len())
		for i := range items {
			items[i] = rayzeroPlain(value.Index(i))
		}
		return items
	}
	found := []any{}
	if rayzeroIsNode(kind, "Next") {
		for node := value; !node.IsNil(); node = node.Elem().FieldByName("Next") {
			if found = append(found, node.Elem().FieldByName("Val").Interface()); len(found) > rayzeroMaxNodes {
				rayzeroOS.Exit(1)
			}
		}
		return found
	}
	if !rayzeroIsNode(kind, "Left") {
		return value.Interface()
	}
	level := []rayzeroReflect.Value{value}
	for i := 0; i < len(level); i++ {
		if level[i].IsNil() {
			found = append(found, nil)
		} else {
			found = append(found, level[i].Elem().FieldByName("Val").Interface())
			level = append(level, level[i].Elem().FieldByName("Left"), level[i].Elem().FieldByName("Right"))
		}
		if len(found) > rayzeroMaxNodes {
			rayzeroOS.Exit(1)
		}
	}
	for len(found) > 0 && found[len(found)-1] == nil {
		found = found[:len(found)-1]
	}
	return found
}
