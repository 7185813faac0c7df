// Calls one function of the program with JSON arguments from stdin and prints {"value": ..., "args": [...]}.
// Parameter types come from the function's own signature. The program's own stdout goes to /dev/null.
#pragma once
#include <bits/stdc++.h>
#include <fcntl.h>
#include <unistd.h>

namespace rayzero {

struct Json {
    enum Kind { Null, Bool, Number, Text, List, Map } kind = Null;
    bool flag = false;
    std::string text;
    std::vector<Json> items;
    std::vector<std::pair<std::string, Json>> members;
};

class Parser {
public:
    explicit Parser(const std::string& text) : s(text) {}
    Json value() {
        skip();
        Json j;
        switch (peek()) {
            case '[': list(j); break;
            case '{': map(j); break;
            case '"': j.kind = Json::Text; j.text = string(); break;
            case 't': i += 4; j.kind = Json::Bool; j.flag = true; break;
            case 'f': i += 5; j.kind = Json::Bool; break;
            case 'n': i += 4; break;
            default: number(j);
        }
        skip();
        return j;
    }

private:
    const std::string& s;
    size_t i = 0;
    char peek() const { return i < s.size() ? s[i] : '\0'; }
    void skip() { while (i < s.size() && isspace((unsigned char)s[i])) ++i; }
    void number(Json& j) {
        j.kind = Json::Number;
        while (i < s.size() && (isalnum((unsigned char)s[i]) || strchr("+-.", s[i]))) j.text += s[i++];
        if (j.text.empty()) throw std::runtime_error("bad JSON");
    }
    void list(Json& j) {
        j.kind = Json::List;
        ++i; skip();
        while (peek() != ']') { j.items.push_back(value()); if (peek() == ',') ++i; else if (peek() != ']') throw std::runtime_error("bad JSON"); }
        ++i;
    }
    void map(Json& j) {
        j.kind = Json::Map;
        ++i; skip();
        while (peek() != '}') {
            skip();
            std::string key = string();
            skip(); ++i;
            j.members.emplace_back(key, value());
            if (peek() == ',') ++i; else if (peek() != '}') throw std::runtime_error("bad JSON");
        }
        ++i;
    }
    unsigned hex() { unsigned v = std::stoul(s.substr(i, 4), nullptr, 16); i += 4; return v; }
    void utf8(std::string& out, unsigned c) {
        if (c < 0x80) out += (char)c;
        else if (c < 0x800) { out += (char)(0xC0 | c >> 6); out += (char)(0x80 | (c & 63)); }
        else if (c < 0x10000) { out += (char)(0xE0 | c >> 12); out += (char)(0x80 | (c >> 6 & 63)); out += (char)(0x80 | (c & 63)); }
        else { out += (char)(0xF0 | c >> 18); out += (char)(0x80 | (c >> 12 & 63)); out += (char)(0x80 | (c >> 6 & 63)); out += (char)(0x80 | (c & 63)); }
    }
    std::string string() {
        std::string out;
        ++i;
        while (peek() != '"') {
            if (i >= s.size()) throw std::runtime_error("bad JSON");
            if (s[i] != '\\') { out += s[i++]; continue; }
            char c = s[i + 1]; i += 2;
            switch (c) {
                case 'n': out += '\n'; break;
                case 't': out += '\t'; break;
                case 'r': out += '\r'; break;
                case 'b': out += '\b'; break;
                case 'f': out += '\f'; break;
                case 'u': {
                    unsigned u = hex();
                    if (u >= 0xD800 && u < 0xDC00 && s.compare(i, 2, "\\u") == 0) { i += 2; u = 0x10000 + ((u - 0xD800) << 10) + (hex() - 0xDC00); }
                    utf8(out, u);
                    break;
                }
                default: out += c;
            }
        }
        ++i;
        return out;
    }
};

[[noreturn]] inline void mismatch() { throw std::runtime_error("an argument does not fit the parameter's type"); }

template <class T> struct Convert;
template <class T> T from(const Json& j) { return Convert<T>::from(j); }
template <class T> void to(std::ostream& o, const T& v) { Convert<T>::to(o, v); }

template <class T> requires(std::is_integral_v<T>) struct Convert<T> {
    static T from(const Json& j) {
        if (j.kind != Json::Number) mismatch();
        if (j.text.find_first_of(".eE") != std::string::npos) return (T)std::stold(j.text);
        return j.text[0] == '-' ? (T)std::stoll(j.text) : (T)std::stoull(j.text);
    }
    static void to(std::ostream& o, T v) { o << +v; }
};
template <> struct Convert<bool> {
    static bool from(const Json& j) { if (j.kind != Json::Bool) mismatch(); return j.flag; }
    static void to(std::ostream& o, bool v) { o << (v ? "true" : "false"); }
};
template <class T> requires(std::is_floating_point_v<T>) struct Convert<T> {
    static T from(const Json& j) { if (j.kind != Json::Number) mismatch(); return (T)std::stold(j.text); }
    static void to(std::ostream& o, T v) {
        if (!std::isfinite(v)) { o << "null"; return; }
        std::ostringstream text;
        text << std::setprecision(std::numeric_limits<T>::max_digits10) << v;
        std::string s = text.str();
        o << s << (s.find_first_of(".e") == std::string::npos ? ".0" : "");
    }
};
template <> struct Convert<std::string> {
    static std::string from(const Json& j) { if (j.kind != Json::Text) mismatch(); return j.text; }
    static void to(std::ostream& o, const std::string& v) {
        o << '"';
        for (unsigned char c : v) {
            if (c == '"' || c == '\\') o << '\\' << c;
            else if (c < 32) o << "\\u00" << "0123456789abcdef"[c >> 4] << "0123456789abcdef"[c & 15];
            else o << c;
        }
        o << '"';
    }
};
template <> struct Convert<char> {
    static char from(const Json& j) { if (j.kind != Json::Text || j.text.size() != 1) mismatch(); return j.text[0]; }
    static void to(std::ostream& o, char v) { Convert<std::string>::to(o, std::string(1, v)); }
};
template <class C> void sequence(std::ostream& o, const C& values) {
    o << '[';
    bool first = true;
    for (const auto& v : values) { if (!first) o << ','; first = false; to<std::decay_t<decltype(v)>>(o, v); }
    o << ']';
}
template <class T> struct Convert<std::vector<T>> {
    static std::vector<T> from(const Json& j) {
        if (j.kind != Json::List) mismatch();
        std::vector<T> out;
        for (const auto& item : j.items) out.push_back(rayzero::from<T>(item));
        return out;
    }
    static void to(std::ostream& o, const std::vector<T>& v) {
        o << '[';
        for (size_t k = 0; k < v.size(); ++k) { if (k) o << ','; rayzero::to<T>(o, v[k]); }
        o << ']';
    }
};
template <class S, class T> struct Collection {
    static S from(const Json& j) { S out; for (auto& v : rayzero::from<std::vector<T>>(j)) out.insert(out.end(), v); return out; }
    static void to(std::ostream& o, const S& v) { sequence(o, v); }
};
template <class T> struct Convert<std::set<T>> : Collection<std::set<T>, T> {};
template <class T> struct Convert<std::unordered_set<T>> : Collection<std::unordered_set<T>, T> {};
template <class T> struct Convert<std::list<T>> : Collection<std::list<T>, T> {};
template <class T> struct Convert<std::deque<T>> : Collection<std::deque<T>, T> {};
template <class A, class B> struct Convert<std::pair<A, B>> {
    static std::pair<A, B> from(const Json& j) {
        if (j.kind != Json::List || j.items.size() != 2) mismatch();
        return {rayzero::from<A>(j.items[0]), rayzero::from<B>(j.items[1])};
    }
    static void to(std::ostream& o, const std::pair<A, B>& v) {
        o << '['; rayzero::to<A>(o, v.first); o << ','; rayzero::to<B>(o, v.second); o << ']';
    }
};
template <class M> struct Mapping {
    using K = typename M::key_type;
    using V = typename M::mapped_type;
    static M from(const Json& j) {
        if (j.kind != Json::Map) mismatch();
        M out;
        for (const auto& [key, value] : j.members) {
            Json k;
            k.kind = std::is_arithmetic_v<K> ? Json::Number : Json::Text;
            k.text = key;
            out[rayzero::from<K>(k)] = rayzero::from<V>(value);
        }
        return out;
    }
    static void to(std::ostream& o, const M& v) {
        o << '{';
        bool first = true;
        for (const auto& [key, value] : v) {
            if (!first) o << ',';
            first = false;
            std::ostringstream k;
            rayzero::to<K>(k, key);
            o << (k.str()[0] == '"' ? k.str() : '"' + k.str() + '"') << ':';
            rayzero::to<V>(o, value);
        }
        o << '}';
    }
};
template <class K, class V> struct Convert<std::map<K, V>> : Mapping<std::map<K, V>> {};
template <class K, class V> struct Convert<std::unordered_map<K, V>> : Mapping<std::unordered_map<K, V>> {};
template <class T> struct Convert<std::optional<T>> {
    static std::optional<T> from(const Json& j) { if (j.kind == Json::Null) return std::nullopt; return rayzero::from<T>(j); }
    static void to(std::ostream& o, const std::optional<T>& v) { if (v) rayzero::to<T>(o, *v); else o << "null"; }
};

// LeetCode's linked lists and trees: [1,2,3], and [3,9,20,null,null,15,7] level by level.
constexpr size_t MAX_NODES = 1000000;
template <class T> T* node(const Json& j) {
    auto value = rayzero::from<decltype(T::val)>(j);
    if constexpr (std::is_constructible_v<T, decltype(T::val)>) return new T(value);
    else { T* made = new T(); made->val = value; return made; }
}
template <class T> requires requires(T* n) { n->val; n->next; } struct Convert<T*> {
    static T* from(const Json& j) {
        T* head = nullptr;
        for (size_t k = j.items.size(); k-- > 0;) { T* made = node<T>(j.items[k]); made->next = head; head = made; }
        return head;
    }
    static void to(std::ostream& o, T* head) {
        o << '[';
        size_t count = 0;
        for (T* n = head; n; n = n->next) {
            if (++count > MAX_NODES) throw std::runtime_error("a linked list without an end");
            if (n != head) o << ',';
            rayzero::to<decltype(T::val)>(o, n->val);
        }
        o << ']';
    }
};
template <class T> requires requires(T* n) { n->val; n->left; n->right; } struct Convert<T*> {
    static inline std::vector<T*> known;  // an integer argument names a node of the tree before it, and so does the result
    static inline bool named = false;
    static T* from(const Json& j) {
        if (j.kind == Json::Number) {
            named = true;
            auto wanted = rayzero::from<decltype(T::val)>(j);
            for (T* n : known) if (n->val == wanted) return n;
            return node<T>(j);
        }
        if (j.items.empty() || j.items[0].kind == Json::Null) return nullptr;
        std::vector<T*> level{node<T>(j.items[0])};
        for (size_t k = 0, at = 1; k < level.size(); ++k) {
            T* sides[2] = {nullptr, nullptr};
            for (T*& side : sides) {
                if (at >= j.items.size()) break;
                if (j.items[at].kind != Json::Null) level.push_back(side = node<T>(j.items[at]));
                ++at;
            }
            level[k]->left = sides[0];
            level[k]->right = sides[1];
        }
        known.insert(known.end(), level.begin(), level.end());
        return level[0];
    }
    static void to(std::ostream& o, T* root) {
        if (named && root) { rayzero::to<decltype(T::val)>(o, root->val); return; }
        std::vector<T*> level{root};
        for (size_t k = 0; k < level.size(); ++k) {
            if (level.size() > MAX_NODES) throw std::runtime_error("a tree without an end");
            if (T* n = level[k]) { level.push_back(n->left); level.push_back(n->right); }
        }
        while (!level.empty() && !level.back()) level.pop_back();
        o << '[';
        for (size_t k = 0; k < level.size(); ++k) {
            if (k) o << ',';
            if (level[k]) rayzero::to<decltype(T::val)>(o, level[k]->val); else o << "null";
        }
        o << ']';
    }
};

// An argument as the call left it. What a node points to may be freed by then, unless the call's effect is all there is.
template <class R, class A> void left(std::ostream& o, const A& value) {
    if constexpr (std::is_pointer_v<A> && !std::is_void_v<R>) o << "null";
    else to<A>(o, value);
}

inline int answer(int out, const std::string& text) {
    for (size_t done = 0; done < text.size();) {
        ssize_t n = write(out, text.data() + done, text.size() - done);
        if (n <= 0) return 1;
        done += n;
    }
    return 0;
}

struct Request {
    int out;
    Json args;
};

// The arguments; from here on the program's own stdin and stdout are /dev/null.
inline Request request() {
    std::string input((std::istreambuf_iterator<char>(std::cin)), std::istreambuf_iterator<char>());
    int out = dup(1), null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(null, 1);
    return {out, Parser(input).value()};
}

template <class R, class... A, class F> int invoke(const Request& asked, F function) {
    const Json& args = asked.args;
    if (args.items.size() != sizeof...(A)) throw std::runtime_error("wrong number of arguments");
    return [&]<size_t... I>(std::index_sequence<I...>) {
        std::tuple<std::decay_t<A>...> values{from<std::decay_t<A>>(args.items[I])...};
        std::ostringstream text;
        text << "{\"value\":";
        if constexpr (std::is_void_v<R>) { function(std::get<I>(values)...); text << "null"; }
        else to<std::decay_t<R>>(text, function(std::get<I>(values)...));
        text << ",\"args\":[";
        ((I ? (void)(text << ',') : (void)0, left<R, std::decay_t<A>>(text, std::get<I>(values))), ...);
        text << "]}";
        return answer(asked.out, text.str());
    }(std::index_sequence_for<A...>{});
}

template <class C, class R, class... A> int serve(R (C::*f)(A...)) {
    return invoke<R, A...>(request(), [f](A... a) -> R { static C object; return (object.*f)(std::forward<A>(a)...); });
}
template <class C, class R, class... A> int serve(R (C::*f)(A...) const) {
    return invoke<R, A...>(request(), [f](A... a) -> R { static C object; return (object.*f)(std::forward<A>(a)...); });
}
template <class R, class... A> int serve(R (*f)(A...)) {
    return invoke<R, A...>(request(), f);
}

// Of several overloads (as lambdas), the first that the arguments fit.
template <class F, class R, class... A> bool called(const Request& asked, F& f, R (F::*)(A...) const, int& code) {
    if (asked.args.items.size() != sizeof...(A)) return false;
    try {
        [&]<size_t... I>(std::index_sequence<I...>) { ((void)from<std::decay_t<A>>(asked.args.items[I]), ...); }(std::index_sequence_for<A...>{});
    } catch (const std::exception&) { return false; }
    code = invoke<R, A...>(asked, f);
    return true;
}
template <class... F> int serve_overloads(F... overloads) {
    Request asked = request();
    int code = 1;
    (called(asked, overloads, &F::operator(), code) || ...);
    return code;
}

}  // namespace rayzero
