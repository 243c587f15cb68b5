//! Which bytes of an exchange ureq sees, and where the body of an answer begins.

use super::*;

fn secrets(texts: &[&'static str]) -> Vec<HeaderValue> {
    texts.iter().map(|text| HeaderValue::from_static(text)).collect()
}

#[test]
fn sensitive_values_are_swapped_out_and_back_others_stay() {
    let mut headers = HeaderMap::new();
    for (name, value, sensitive) in
        [("authorization", "Bearer abc", true), ("accept", "application/json", false), ("x", "token", true)]
    {
        let mut value = HeaderValue::from_static(value);
        value.set_sensitive(sensitive);
        headers.insert(name, value);
    }
    let taken = take_from(&mut headers);
    assert_eq!(headers["accept"], "application/json");
    let line =
        |(name, value): (&http::HeaderName, &HeaderValue)| format!("{name}: {}\r\n", value.to_str().unwrap());
    let mut head = headers.iter().map(line).collect::<String>().into_bytes();
    assert!(!head.windows(3).any(|bytes| bytes == b"abc" || bytes == b"tok"));
    put_in_place(&taken, &mut head).unwrap();
    let head = String::from_utf8(head).unwrap();
    assert!(head.contains("authorization: Bearer abc\r\n") && head.contains("x: token\r\n"), "{head}");
}

#[test]
fn a_head_without_the_placeholder_or_with_two_is_not_sent() {
    for head in ["authorization: !!!\r\n", "a: !!!!\r\nb: !!!!\r\n", "a: !!!!!\r\n", ""] {
        let mut bytes = head.as_bytes().to_vec();
        assert!(put_in_place(&secrets(&["abcd"]), &mut bytes).is_err(), "{head}");
        assert_eq!(bytes, head.as_bytes());
    }
    let mut empty = b"a: \r\n".to_vec();
    assert!(put_in_place(&secrets(&[""]), &mut empty).is_err());
    assert!(put_in_place(&secrets(&[]), &mut empty).is_ok());
}

#[test]
fn a_body_replaces_its_placeholder_in_writes_of_any_size() {
    for at_once in [1, 3, 7, 100] {
        let exchange = Exchange::default();
        let shown = exchange.begin(&mut HeaderMap::new(), WipedBytes::copy_of(b"secret body"), 100);
        assert_eq!(shown, b"00000000000");
        let mut head = b"POST / HTTP/1.1\r\n\r\n".to_vec();
        exchange.0.lock().put_into(&mut head).unwrap();
        assert_eq!(head, b"POST / HTTP/1.1\r\n\r\n");
        let mut sent = shown;
        for piece in sent.chunks_mut(at_once) {
            exchange.0.lock().put_into(piece).unwrap();
        }
        assert_eq!(sent, b"secret body");
        assert!(exchange.0.lock().put_into(&mut [0]).is_err(), "more than the body is not sent");
    }
}

#[test]
fn ureq_sees_only_the_response_head_and_the_rest_is_bounded() {
    let exchange = Exchange::default();
    exchange.begin(&mut HeaderMap::new(), WipedBytes::default(), 4);
    let arrived = b"HTTP/1.1 200 OK\r\n\r\nsecret";
    let mut shown = vec![0; arrived.len()];
    exchange.0.lock().show(arrived, &mut shown);
    assert_eq!(shown, b"HTTP/1.1 200 OK\r\n\r\n000000");
    let ended = exchange.end();
    assert_eq!((&ended.body[..], ended.length, ended.is_sent), (&b"secr"[..], 6, false));
}

fn body(answer: &str) -> String {
    let mut framing = Framing::new();
    let body = answer.bytes().filter(|byte| framing.is_of_body(*byte)).collect();
    String::from_utf8(body).unwrap()
}

#[test]
fn the_body_is_what_follows_the_head() {
    assert_eq!(body("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"), "abc");
    assert_eq!(body("HTTP/1.1 200 OK\ncontent-length: 3\n\nabc\r\n\r\n"), "abc\r\n\r\n");
    assert_eq!(body("HTTP/1.1 204 No Content\r\n\r\n"), "");
    assert_eq!(body("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\na: b\r\n\r\nabc"), "abc");
    assert_eq!(body(&format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\nabc", "y".repeat(9000))), "abc");
}

#[test]
fn the_sizes_and_the_trailer_are_no_part_of_a_chunked_body() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";
    assert_eq!(
        body(&format!("{head}3\r\nabc\r\n0A;x=y\r\n0123\r\n5678\r\n0\r\nx-t: z\r\n\r\n")),
        "abc0123\r\n5678"
    );
    assert_eq!(body(&format!("{head}0\r\n\r\n")), "");
    assert_eq!(body(&format!("{head}zz\r\nabc")), "abc", "what is not a chunk is hidden");
}
