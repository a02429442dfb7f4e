//! Typed arguments, with the protocol's refusals.
//!
//! A serde deserializer over a parsed object, so that a command is a plain `#[derive(Deserialize)]` type. Members are
//! read in the order of the type's fields. The first that is missing or of the wrong type is an error that names its
//! path (`vcpus[0].online`). Then members the type does not have are refused. An `Option` may be absent, but `null` is
//! a value of the wrong type like any other.

use std::fmt::{self, Display};

use serde::{
    Deserialize,
    de::{
        self, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
        VariantAccess, Visitor,
    },
    forward_to_deserialize_any,
};

use super::{
    error::Error,
    value::{Object, Value},
};

type Result<T> = std::result::Result<T, Error>;

/// Reads a command's arguments.
///
/// # Errors
/// With the protocol's text, for the first argument that is missing, of the wrong type or unknown to the command.
pub fn read<'de, T: Deserialize<'de>>(arguments: &'de Object<'de>) -> Result<T> {
    T::deserialize(Root(arguments))
}

impl de::Error for Error {
    fn custom<T: Display>(message: T) -> Self {
        Self::generic(message.to_string())
    }

    /// What was expected. `Argument::deserialize_any` adds the path.
    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::generic(expected.to_string())
    }
}

/// The arguments object itself, which has no name.
struct Root<'de>(&'de Object<'de>);

impl<'de> Deserializer<'de> for Root<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        read_struct(self.0, &[], None, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        read_struct(self.0, fields, None, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn read_struct<'de, V: Visitor<'de>>(
    members: &'de Object<'de>,
    fields: &'static [&'static str],
    parent: Option<&Path<'_>>,
    visitor: V,
) -> Result<V::Value> {
    let value = visitor.visit_map(Members { members, fields, parent, next: 0 })?;
    match members.keys().find(|name| !fields.contains(&name.as_ref())) {
        Some(surplus) => {
            let path = Path { parent, step: PathStep::Member(surplus) };
            Err(Error::generic(format!("Parameter '{path}' is unexpected")))
        }
        None => Ok(value),
    }
}

/// The path of an argument: `vcpus[0].online`.
#[derive(Clone, Copy)]
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: PathStep<'a>,
}

#[derive(Clone, Copy)]
enum PathStep<'a> {
    Member(&'a str),
    Element(usize),
}

impl Display for Path<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(formatter)?;
        }
        match self.step {
            PathStep::Element(index) => write!(formatter, "[{index}]"),
            PathStep::Member(name) if self.parent.is_some() => write!(formatter, ".{name}"),
            PathStep::Member(name) => formatter.write_str(name),
        }
    }
}

/// An object's members in the order of the type's fields; absent ones are offered too.
struct Members<'de, 'p> {
    members: &'de Object<'de>,
    fields: &'static [&'static str],
    parent: Option<&'p Path<'p>>,
    next: usize,
}

impl<'de> MapAccess<'de> for Members<'de, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let Some(field) = self.fields.get(self.next) else { return Ok(None) };
        self.next += 1;
        seed.deserialize((*field).into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        let field = self.fields[self.next - 1];
        let path = Path { parent: self.parent, step: PathStep::Member(field) };
        seed.deserialize(Argument { value: self.members.get(field), path })
    }
}

struct Elements<'de, 'p> {
    elements: std::iter::Enumerate<std::slice::Iter<'de, Value<'de>>>,
    parent: &'p Path<'p>,
}

impl<'de> SeqAccess<'de> for Elements<'de, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        let Some((index, value)) = self.elements.next() else { return Ok(None) };
        let path = Path { parent: Some(self.parent), step: PathStep::Element(index) };
        seed.deserialize(Argument { value: Some(value), path }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.elements.len())
    }
}

/// One argument, which may be absent.
struct Argument<'de, 'p> {
    value: Option<&'de Value<'de>>,
    path: Path<'p>,
}

impl<'de> Argument<'de, '_> {
    fn present(&self) -> Result<&'de Value<'de>> {
        self.value.ok_or_else(|| Error::generic(format!("Parameter '{}' is missing", self.path)))
    }

    fn wrong_type(&self, expected: &str) -> Error {
        Error::generic(format!("Invalid parameter type for '{}', expected: {expected}", self.path))
    }

    fn unknown_word(&self, word: &str) -> Error {
        Error::generic(format!("Parameter '{}' does not accept value '{word}'", self.path))
    }

    fn string(&self) -> Result<&'de str> {
        match self.present()? {
            Value::String(text) => Ok(text),
            _ => Err(self.wrong_type("string")),
        }
    }
}

impl<'de> Deserializer<'de> for Argument<'de, '_> {
    type Error = Error;

    /// An argument that may be of several types: the visitor accepts some, names the type in `expecting`, and refuses a
    /// string only because it is an unknown word.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let taken = match self.present()? {
            Value::String(word) => {
                return visitor.visit_borrowed_str(word).map_err(|_: Error| self.unknown_word(word));
            }
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::UInt(value) => visitor.visit_u64(*value),
            Value::Double(value) => visitor.visit_f64(*value),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                Err(de::Error::invalid_type(Unexpected::Other("value"), &visitor))
            }
        };
        taken.map_err(|expected: Error| self.wrong_type(&expected.desc))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.present()? {
            Value::Bool(value) => visitor.visit_bool(*value),
            _ => Err(self.wrong_type("boolean")),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.present()? {
            Value::Int(value) => visitor.visit_i64(*value),
            _ => Err(self.wrong_type("integer")),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.present()? {
            Value::UInt(value) => visitor.visit_u64(*value),
            // Hosts send large sizes as negative numbers: libvirt's 64 bits have a sign.
            Value::Int(value) => visitor.visit_u64(value.cast_unsigned()),
            _ => Err(Error::generic(format!("Parameter '{}' expects uint64", self.path))),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_borrowed_str(self.string()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.value {
            None => visitor.visit_none(),
            Some(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.present()? {
            Value::Array(values) => {
                visitor.visit_seq(Elements { elements: values.iter().enumerate(), parent: &self.path })
            }
            _ => Err(self.wrong_type("array")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self.present()? {
            Value::Object(members) => read_struct(members, fields, Some(&self.path), visitor),
            _ => Err(self.wrong_type("object")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let word = self.string()?;
        if !variants.contains(&word) {
            return Err(self.unknown_word(word));
        }
        visitor.visit_enum(Word(word))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 u8 u16 u32 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct map identifier ignored_any
    }
}

/// A word of an enumeration.
struct Word<'de>(&'de str);

impl<'de> EnumAccess<'de> for Word<'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self)> {
        Ok((seed.deserialize(self.0.into_deserializer())?, self))
    }
}

impl<'de> VariantAccess<'de> for Word<'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<()> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value> {
        Err(de::Error::custom("a word carries no value"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value> {
        Err(de::Error::custom("a word carries no values"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value> {
        Err(de::Error::custom("a word carries no members"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::parse::parse;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(rename_all = "kebab-case")]
    struct Everything {
        number: Option<i64>,
        size: Option<u64>,
        flag: Option<bool>,
        text: Option<String>,
        word: Option<Word>,
        list: Option<Vec<String>>,
        #[serde(rename = "item")]
        items: Option<Vec<Item>>,
        nested: Option<Item>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "kebab-case")]
    enum Word {
        Short,
        TwoWords,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "kebab-case")]
    struct Item {
        logical_id: i64,
        online: bool,
        label: Option<Wrapped>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Wrapped(String);

    fn read_text<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T> {
        match parse(text.as_bytes()) {
            Ok(Value::Object(arguments)) => read(&arguments),
            other => panic!("{text} is no object but {other:?}"),
        }
    }

    fn check(text: &str, expected: Everything) {
        assert_eq!(read_text(text), Ok(expected), "{text}");
    }

    fn check_refused(text: &str, desc: &str) {
        assert_eq!(read_text::<Everything>(text), Err(Error::generic(desc)), "{text}");
    }

    #[test]
    fn optional_arguments_may_be_absent() {
        check("{}", Everything::default());
    }

    #[test]
    fn every_type_is_read() {
        check(
            "{'number':-1,'size':1,'flag':true,'text':'t','word':'two-words','list':['a','b'],\
             'item':[{'logical-id':1,'online':false,'label':'l'}],'nested':{'online':true,'logical-id':2}}",
            Everything {
                number: Some(-1),
                size: Some(1),
                flag: Some(true),
                text: Some("t".into()),
                word: Some(Word::TwoWords),
                list: Some(vec!["a".into(), "b".into()]),
                items: Some(vec![Item { logical_id: 1, online: false, label: Some(Wrapped("l".into())) }]),
                nested: Some(Item { logical_id: 2, online: true, label: None }),
            },
        );
    }

    #[test]
    fn an_integer_has_64_bits_and_no_fraction() {
        check("{'number':9223372036854775807}", Everything { number: Some(i64::MAX), ..Everything::default() });
        check("{'number':-9223372036854775808}", Everything { number: Some(i64::MIN), ..Everything::default() });
        for number in ["9223372036854775808", "-9223372036854775809", "1.0", "1e3", "'1'", "true", "null", "[]", "{}"] {
            let text = format!("{{'number':{number}}}");
            check_refused(&text, "Invalid parameter type for 'number', expected: integer");
        }
    }

    #[test]
    fn an_unsigned_integer_may_be_sent_as_a_negative_one() {
        check("{'size':18446744073709551615}", Everything { size: Some(u64::MAX), ..Everything::default() });
        check("{'size':-1}", Everything { size: Some(u64::MAX), ..Everything::default() });
        for size in ["18446744073709551616", "1.0", "'1'", "null"] {
            check_refused(&format!("{{'size':{size}}}"), "Parameter 'size' expects uint64");
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_the_right_one() {
        check_refused("{'flag':1}", "Invalid parameter type for 'flag', expected: boolean");
        check_refused("{'text':1}", "Invalid parameter type for 'text', expected: string");
        check_refused("{'word':1}", "Invalid parameter type for 'word', expected: string");
        check_refused("{'list':'a'}", "Invalid parameter type for 'list', expected: array");
        check_refused("{'nested':[]}", "Invalid parameter type for 'nested', expected: object");
    }

    #[test]
    fn null_is_not_absent() {
        check_refused("{'flag':null}", "Invalid parameter type for 'flag', expected: boolean");
        check_refused("{'nested':null}", "Invalid parameter type for 'nested', expected: object");
    }

    #[test]
    fn an_unknown_word_is_quoted() {
        check_refused("{'word':'foo'}", "Parameter 'word' does not accept value 'foo'");
        check_refused("{'word':'Short'}", "Parameter 'word' does not accept value 'Short'");
    }

    #[test]
    fn arguments_inside_others_are_named_by_their_path() {
        check_refused("{'list':['a',1]}", "Invalid parameter type for 'list[1]', expected: string");
        check_refused("{'item':[{'logical-id':1}]}", "Parameter 'item[0].online' is missing");
        check_refused("{'item':[[]]}", "Invalid parameter type for 'item[0]', expected: object");
        check_refused(
            "{'nested':{'logical-id':'x'}}",
            "Invalid parameter type for 'nested.logical-id', expected: integer",
        );
        check_refused("{'nested':{'logical-id':1,'online':true,'x':1}}", "Parameter 'nested.x' is unexpected");
        check_refused(
            "{'nested':{'logical-id':1,'online':true,'label':1}}",
            "Invalid parameter type for 'nested.label', expected: string",
        );
    }

    #[test]
    fn the_first_fault_in_the_types_order_is_named_and_surplus_names_come_last() {
        check_refused("{'list':1,'flag':1,'x':1}", "Invalid parameter type for 'flag', expected: boolean");
        check_refused("{'x':1}", "Parameter 'x' is unexpected");
        check_refused("{'Number':1}", "Parameter 'Number' is unexpected");
        assert_eq!(read_text::<Item>("{'online':1,'x':1}"), Err(Error::generic("Parameter 'logical-id' is missing")));
    }
}
