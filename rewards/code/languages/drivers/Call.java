// Calls one method of class Solution (or a static one of Main) with JSON arguments from stdin and prints
// {"value": ..., "args": [...]}. Parameter types come from the method's own signature.
import java.io.*;
import java.lang.reflect.*;
import java.nio.charset.StandardCharsets;
import java.util.*;

class RayzeroCall {
    public static void main(String[] argv) throws Exception {
        PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), false, "UTF-8");
        String input = new String(System.in.readAllBytes(), StandardCharsets.UTF_8);
        System.setOut(new PrintStream(OutputStream.nullOutputStream()));
        System.setIn(InputStream.nullInputStream());
        List<?> given = (List<?>) new Parser(input).value();
        Method method = find(argv[0], given.size());
        method.setAccessible(true);
        Object target = null;
        if (!Modifier.isStatic(method.getModifiers())) {
            Constructor<?> make = method.getDeclaringClass().getDeclaredConstructor();
            make.setAccessible(true);
            target = make.newInstance();
        }
        Type[] types = method.getGenericParameterTypes();
        Object[] args = new Object[types.length];
        for (int i = 0; i < types.length; i++) args[i] = from(given.get(i), types[i]);
        Object value = method.invoke(target, args);
        StringBuilder text = new StringBuilder("{\"value\":");
        if (value == null && kindOf(method.getReturnType()) != ' ') text.append("[]");
        else if (named && value != null && kindOf(value.getClass()) == 'T') to(text, field(value, "val"));
        else to(text, value);
        text.append(",\"args\":");
        to(text, args);
        out.print(text.append('}'));
        out.flush();
        System.exit(0);
    }

    static Method find(String name, int count) throws Exception {
        for (String owner : new String[] {"Solution", "Main"}) {
            Class<?> type;
            try { type = Class.forName(owner); } catch (ClassNotFoundException e) { continue; }
            for (Method m : type.getDeclaredMethods())
                if (m.getName().equals(name) && m.getParameterCount() == count && !m.isSynthetic()) return m;
        }
        throw new NoSuchMethodException(name);
    }

    static Object from(Object j, Type type) {
        if (type instanceof ParameterizedType) {
            ParameterizedType p = (ParameterizedType) type;
            Class<?> raw = (Class<?>) p.getRawType();
            Type[] inner = p.getActualTypeArguments();
            if (Map.class.isAssignableFrom(raw)) {
                Map<Object, Object> map = new HashMap<>();
                for (Map.Entry<?, ?> e : ((Map<?, ?>) j).entrySet()) {
                    Object key = inner[0] == String.class ? e.getKey() : from(new Num((String) e.getKey()), inner[0]);
                    map.put(key, from(e.getValue(), inner[1]));
                }
                return map;
            }
            Collection<Object> made = Set.class.isAssignableFrom(raw) ? new HashSet<>() : new ArrayList<>();
            for (Object item : (List<?>) j) made.add(from(item, inner[0]));
            return made;
        }
        if (type instanceof GenericArrayType) return array(j, ((GenericArrayType) type).getGenericComponentType(), List.class);
        Class<?> c = (Class<?>) type;
        if (kindOf(c) == 'L') return chain(j, c);
        if (kindOf(c) == 'T') return tree(j, c);
        if (c.isArray()) return array(j, c.getComponentType(), c.getComponentType());
        if (j == null) return null;
        if (c == int.class || c == Integer.class) return (int) ((Num) j).whole();
        if (c == long.class || c == Long.class) return ((Num) j).whole();
        if (c == short.class || c == Short.class) return (short) ((Num) j).whole();
        if (c == byte.class || c == Byte.class) return (byte) ((Num) j).whole();
        if (c == double.class || c == Double.class) return Double.parseDouble(((Num) j).text);
        if (c == float.class || c == Float.class) return Float.parseFloat(((Num) j).text);
        if (c == boolean.class || c == Boolean.class) return (Boolean) j;
        if (c == char.class || c == Character.class) return ((String) j).charAt(0);
        if (c == String.class) return (String) j;
        if (j instanceof Num) return ((Num) j).text.matches("-?\\d+") ? (Object) (int) ((Num) j).whole() : Double.valueOf(((Num) j).text);
        return j;
    }

    // LeetCode's linked lists and trees: [1,2,3], and [3,9,20,null,null,15,7] level by level.

    static final int MAX_NODES = 1000000;
    static final List<Object> known = new ArrayList<>();
    static boolean named = false;  // an integer argument names a node of the tree before it, and so does the result

    static char kindOf(Class<?> type) {
        return type.getSimpleName().equals("ListNode") ? 'L' : type.getSimpleName().equals("TreeNode") ? 'T' : ' ';
    }

    static Object field(Object node, String name) {
        try {
            Field f = node.getClass().getDeclaredField(name);
            f.setAccessible(true);
            return f.get(node);
        } catch (ReflectiveOperationException e) { throw new RuntimeException(e); }
    }

    static void set(Object node, String name, Object value) {
        try {
            Field f = node.getClass().getDeclaredField(name);
            f.setAccessible(true);
            f.set(node, value);
        } catch (ReflectiveOperationException e) { throw new RuntimeException(e); }
    }

    static Object node(Object j, Class<?> type) {
        try {
            Field f = type.getDeclaredField("val");
            Object value = from(j, f.getGenericType());
            for (Constructor<?> make : type.getDeclaredConstructors()) {
                if (make.getParameterCount() > 1) continue;
                make.setAccessible(true);
                Object made = make.getParameterCount() == 1 ? make.newInstance(value) : make.newInstance();
                set(made, "val", value);
                return made;
            }
            throw new IllegalArgumentException(type.getName());
        } catch (ReflectiveOperationException e) { throw new RuntimeException(e); }
    }

    static Object chain(Object j, Class<?> type) {
        Object head = null;
        List<?> list = j == null ? List.of() : (List<?>) j;
        for (int i = list.size() - 1; i >= 0; i--) {
            Object made = node(list.get(i), type);
            set(made, "next", head);
            head = made;
        }
        return head;
    }

    static Object tree(Object j, Class<?> type) {
        if (j instanceof Num) {
            named = true;
            for (Object n : known) if (field(n, "val").toString().equals(((Num) j).text)) return n;
            return node(j, type);
        }
        List<?> list = j == null ? List.of() : (List<?>) j;
        if (list.isEmpty() || list.get(0) == null) return null;
        List<Object> level = new ArrayList<>(List.of(node(list.get(0), type)));
        for (int i = 0, at = 1; i < level.size(); i++)
            for (String side : new String[] {"left", "right"})
                if (at < list.size()) {
                    Object item = list.get(at++);
                    if (item == null) continue;
                    level.add(node(item, type));
                    set(level.get(i), side, level.get(level.size() - 1));
                }
        known.addAll(level);
        return level.get(0);
    }

    static List<Object> values(Object head) {
        List<Object> found = new ArrayList<>();
        for (Object n = head; n != null; n = field(n, "next")) {
            found.add(field(n, "val"));
            if (found.size() > MAX_NODES) throw new IllegalStateException("a linked list without an end");
        }
        return found;
    }

    static List<Object> levels(Object root) {
        List<Object> level = new ArrayList<>(List.of(root)), found = new ArrayList<>();
        for (int i = 0; i < level.size(); i++) {
            Object n = level.get(i);
            found.add(n == null ? null : field(n, "val"));
            if (n != null) { level.add(field(n, "left")); level.add(field(n, "right")); }
            if (found.size() > MAX_NODES) throw new IllegalStateException("a tree without an end");
        }
        while (found.get(found.size() - 1) == null) found.remove(found.size() - 1);
        return found;
    }

    static Object array(Object j, Type element, Class<?> raw) {
        List<?> list = (List<?>) j;
        Object made = Array.newInstance(raw, list.size());
        for (int i = 0; i < list.size(); i++) Array.set(made, i, from(list.get(i), element));
        return made;
    }

    static void to(StringBuilder o, Object v) {
        if (v != null && kindOf(v.getClass()) != ' ') to(o, kindOf(v.getClass()) == 'L' ? values(v) : levels(v));
        else if (v == null || v instanceof Boolean || v instanceof Integer || v instanceof Long || v instanceof Short || v instanceof Byte) o.append(v);
        else if (v instanceof Double || v instanceof Float) {
            double d = ((Number) v).doubleValue();
            o.append(Double.isFinite(d) ? v.toString() : "null");
        } else if (v instanceof Map) {
            String comma = "";
            o.append('{');
            for (Map.Entry<?, ?> e : ((Map<?, ?>) v).entrySet()) {
                o.append(comma);
                text(o, String.valueOf(e.getKey()));
                o.append(':');
                to(o, e.getValue());
                comma = ",";
            }
            o.append('}');
        } else if (v instanceof Iterable || v.getClass().isArray()) {
            String comma = "";
            o.append('[');
            int n = v instanceof Iterable ? 0 : Array.getLength(v);
            if (v instanceof Iterable) for (Object item : (Iterable<?>) v) { o.append(comma); to(o, item); comma = ","; }
            for (int i = 0; i < n; i++) { o.append(comma); to(o, Array.get(v, i)); comma = ","; }
            o.append(']');
        } else if (v instanceof Number) o.append(v);
        else text(o, v.toString());
    }

    static void text(StringBuilder o, String s) {
        o.append('"');
        for (char c : s.toCharArray()) {
            if (c == '"' || c == '\\') o.append('\\').append(c);
            else if (c < 32 || c > 126) o.append(String.format("\\u%04x", (int) c));
            else o.append(c);
        }
        o.append('"');
    }

    static final class Num {
        final String text;
        Num(String text) { this.text = text; }
        long whole() { return text.matches("-?\\d+") ? Long.parseLong(text) : new java.math.BigDecimal(text).longValueExact(); }
    }

    static final class Parser {
        final String s;
        int i = 0;
        Parser(String s) { this.s = s; }
        void skip() { while (i < s.length() && Character.isWhitespace(s.charAt(i))) i++; }
        Object value() {
            skip();
            char c = s.charAt(i);
            Object made;
            if (c == '[') {
                List<Object> list = new ArrayList<>();
                i++; skip();
                while (s.charAt(i) != ']') { list.add(value()); if (s.charAt(i) == ',') i++; }
                i++;
                made = list;
            } else if (c == '{') {
                Map<String, Object> map = new LinkedHashMap<>();
                i++; skip();
                while (s.charAt(i) != '}') { skip(); String key = string(); skip(); i++; map.put(key, value()); if (s.charAt(i) == ',') i++; skip(); }
                i++;
                made = map;
            } else if (c == '"') made = string();
            else {
                int start = i;
                while (i < s.length() && ("+-.".indexOf(s.charAt(i)) >= 0 || Character.isLetterOrDigit(s.charAt(i)))) i++;
                if (i == start) throw new IllegalArgumentException("bad JSON");
                String word = s.substring(start, i);
                made = word.equals("null") ? null : word.equals("true") ? (Object) true : word.equals("false") ? (Object) false : new Num(word);
            }
            skip();
            return made;
        }
        String string() {
            StringBuilder o = new StringBuilder();
            for (i++; s.charAt(i) != '"'; i++) {
                char c = s.charAt(i);
                if (c != '\\') { o.append(c); continue; }
                c = s.charAt(++i);
                int at = "ntrbf".indexOf(c);
                if (at >= 0) o.append("\n\t\r\b\f".charAt(at));
                else if (c == 'u') { o.append((char) Integer.parseInt(s.substring(i + 1, i + 5), 16)); i += 4; }
                else o.append(c);
            }
            i++;
            return o.toString();
        }
    }
}
