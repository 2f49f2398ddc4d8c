//! Responses as providers document them, with different tokens.

pub(super) const ANSWERS: [&str; 30] = [
    // RFC 6749 section 5.1
    r#"{"access_token":"2YotnFZFEjr1zCsicMWpAA","token_type":"example","expires_in":3600,"refresh_token":"tGzv3JOkF0XG5Qx2TlKWIA","example_parameter":"example_value"}"#,
    // Google
    r#"{"access_token":"ya29.a0Af","expires_in":3599,"refresh_token":"1//04d","scope":"https://www.googleapis.com/auth/drive.file openid","token_type":"Bearer","refresh_token_expires_in":604799,"id_token":"e30.e30.x"}"#,
    // Microsoft
    r#"{"token_type":"Bearer","scope":"User.Read profile openid email","expires_in":3736,"ext_expires_in":3736,"access_token":"eyJ0eXAi","refresh_token":"AwABAAAAvPM1KaPlrEqdFSBzjqfTGAMxZGUTdM0t4B4","id_token":"e30.e30.x"}"#,
    // GitHub, an OAuth app and a GitHub app
    r#"{"access_token":"gho_16C7e42F292c6912E7710c838347Ae178B4a","scope":"repo,gist","token_type":"bearer"}"#,
    r#"{"access_token":"ghu_16C7","expires_in":28800,"refresh_token":"ghr_1B4a","refresh_token_expires_in":15811200,"scope":"","token_type":"bearer"}"#,
    // GitLab
    r#"{"access_token":"de6780bc506a0446309bd9362820ba8aed28aa506c71eedbe1c5c4f9dd350e54","token_type":"bearer","expires_in":7200,"refresh_token":"8257e65c97202ed1726cf9571600918f3bffb2544b26e00a61df9897668c33a1","created_at":1607635748}"#,
    // Slack
    r#"{"ok":true,"access_token":"xoxe.xoxp-1","token_type":"user","expires_in":43200,"refresh_token":"xoxe-1","scope":"chat:write","bot_user_id":"U0","app_id":"A0","team":{"name":"N","id":"T9"},"enterprise":null,"is_enterprise_install":false,"authed_user":{"id":"U1"}}"#,
    // Strava
    r#"{"token_type":"Bearer","expires_at":1568775134,"expires_in":21600,"refresh_token":"e5n567567","access_token":"a4b945687g","athlete":{"id":227615,"city":null,"weight":0.0}}"#,
    // Salesforce
    r#"{"access_token":"00D!ARg","signature":"CMm5=","scope":"refresh_token api","instance_url":"https://x.my.salesforce.com","id":"https://login.salesforce.com/id/00D/005","token_type":"Bearer","issued_at":"1278448832702","refresh_token":"5Aep"}"#,
    // Zoho, in the current and the earlier format
    r#"{"access_token":"1000.8cb9","refresh_token":"1000.18e9","api_domain":"https://www.zohoapis.com","token_type":"Bearer","expires_in":3600}"#,
    r#"{"access_token":"1000.8cb9","expires_in_sec":3600,"api_domain":"https://www.zohoapis.com","token_type":"Bearer","expires_in":3600000}"#,
    // Twitch
    r#"{"access_token":"rfx2uswqe8l4g1mkagrvg5tv0ks3","expires_in":14124,"refresh_token":"5b93chm6hdve3mycz05zfzatkfdenfspp1h1ar2xxdalen01","scope":["channel:moderate","chat:edit"],"token_type":"bearer"}"#,
    // Discord
    r#"{"access_token":"6qrZcUqja7812RVdnEKjpzOL4CvHBFG","token_type":"Bearer","expires_in":604800,"refresh_token":"D43f5y0ahjqew82jZ4NViEr2YafMKhue","scope":"identify"}"#,
    // HubSpot
    r#"{"token_type":"bearer","refresh_token":"na1-a1","access_token":"CMS","hub_id":123,"scopes":["oauth"],"expires_in":1800,"user_id":7}"#,
    // Dropbox
    r#"{"access_token":"sl.u.A","token_type":"bearer","expires_in":14400,"refresh_token":"oD","scope":"account_info.read","uid":"12","account_id":"dbid:AA"}"#,
    // Notion
    r#"{"access_token":"ntn_1","token_type":"bearer","refresh_token":"nrt_1","bot_id":"b","workspace_icon":null,"workspace_name":"W","workspace_id":"w","owner":{"type":"user","user":{"object":"user","id":"u"}},"duplicated_template_id":null}"#,
    // Intuit
    r#"{"access_token":"eyJlbmMi","token_type":"bearer","x_refresh_token_expires_in":8726400,"refresh_token":"AB11","expires_in":3600}"#,
    // Shopify
    r#"{"access_token":"shpat_1","scope":"read_products","expires_in":3600,"refresh_token":"shprt_1","refresh_token_expires_in":7776000}"#,
    // Facebook
    r#"{"access_token":"EAAB","token_type":"bearer","expires_in":5183944}"#,
    // LinkedIn
    r#"{"access_token":"AQV","expires_in":5183999,"refresh_token":"AQW","refresh_token_expires_in":31535999,"scope":"email,openid"}"#,
    // ORCID
    r#"{"access_token":"f5af","token_type":"bearer","refresh_token":"37e9","expires_in":631138518,"scope":"/authenticate","name":"Sofia Garcia","orcid":"0000-0001-2345-6789"}"#,
    // Fitbit
    r#"{"access_token":"eyJhbGci","expires_in":28800,"refresh_token":"c643","scope":"activity heartrate","token_type":"Bearer","user_id":"GGNJL9"}"#,
    // Asana
    r#"{"access_token":"f6ds7fdsa69ags7ag9sd5a","expires_in":3600,"token_type":"bearer","refresh_token":"hjkl325hjkl4325hj4kl32fjds","data":{"id":4673218951,"gid":"4673218951","name":"Greg","email":"g@example.com"}}"#,
    // Reddit
    r#"{"access_token":"eyJ.r","token_type":"bearer","expires_in":86400,"refresh_token":"r-1","scope":"identity"}"#,
    // Figma
    r#"{"user_id_string":"9","access_token":"figu_1","token_type":"bearer","expires_in":7776000,"refresh_token":"figur_1"}"#,
    // Heroku
    r#"{"access_token":"HRKU-01234567","expires_in":28799,"refresh_token":"HRKU-036b","token_type":"Bearer","user_id":"01234567","session_nonce":null}"#,
    // Box
    r#"{"access_token":"c3FIOG9vSGV4VHo4QzAyg5T1JvNnJoZ3ExaVNyQWw6WjRsanRKZG5lQk9qUE1BVQ","expires_in":3600,"issued_token_type":"urn:ietf:params:oauth:token-type:access_token","refresh_token":"c3FIOG9v","restricted_to":[{"scope":"item_download","object":{"id":12345,"type":"folder"}}],"token_type":"bearer"}"#,
    // Nylas
    r#"{"access_token":"A1","expires_in":3600,"id_token":"e30.e30.x","refresh_token":"R1","scope":"https://mail.google.com","token_type":"Bearer","grant_id":"e19f","email":"a@example.com","provider":"google"}"#,
    // DigitalOcean
    r#"{"access_token":"547c","token_type":"bearer","expires_in":2592000,"refresh_token":"00a3","scope":"read write","info":{"name":"Sammy","email":"s@example.com","team_uuid":"u","uuid":"e0"}}"#,
    // Mastodon
    r#"{"access_token":"ZA-Yj3aBD8U8Cm7lKUp-lm9O9BmDgdhHzDeqsY8tlL0","token_type":"Bearer","scope":"read","created_at":1573979017}"#,
];
